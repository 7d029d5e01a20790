"""Resuming to the bit, and refusing everything that is not a whole checkpoint of this model."""

import itertools
import multiprocessing
import os
import pickle
import random
import signal
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from labkit import models
from labkit.data import Batches
from labkit.training import AdamW, Training, checkpoint, one_cycle, train


class Noisy(nn.Module):
    """Draws from all global generators in each forward pass; dropout and batch norm as well."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Dropout(0.3), nn.Linear(32, 10)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x) * (1 + 0.1 * random.random() + 0.1 * numpy.random.rand())


def loader() -> DataLoader:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(48, 64, generator=generator)
    return DataLoader(
        TensorDataset(images, torch.arange(48) % 10), batch_size=8, shuffle=True, drop_last=True
    )


def own_batches() -> Batches:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (48, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return Batches(images, torch.arange(48) % 10, 8, std=0.3)


def start(batches: object, precision: str, seed: int = 0) -> Training:
    torch.manual_seed(seed)
    random.seed(seed)
    numpy.random.seed(seed)
    model = Noisy()
    return train(
        model,
        batches,  # type: ignore[arg-type]
        AdamW(lr=0.01).build(model),
        schedule=one_cycle(),
        precision=precision,
        epochs=3,
    )


@pytest.mark.parametrize("make", [loader, own_batches])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("stop_at", [3, 6, 13])  # in an epoch, at its end, in a later one
def test_resumes_to_the_bit(make, precision: str, stop_at: int, tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    whole = start(make(), precision)
    expected = []
    for step in whole:
        expected.append((step.index, step.loss, step.lr))
        if step.index + 1 == stop_at:
            checkpoint.save(path, whole)

    resumed = start(make(), precision, seed=999)  # other weights, other generators
    checkpoint.load(path, resumed)
    got = [(step.index, step.loss, step.lr) for step in resumed]
    assert got == expected[stop_at:]
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def simple_training(width: int = 64) -> Training:
    torch.manual_seed(0)
    model = models.mlp(hidden=width)
    batches = [(torch.randn(4, 64), torch.zeros(4, dtype=torch.long))] * 4
    return train(model, batches, AdamW(lr=0.01).build(model))


def saved(tmp_path: Path, width: int = 64) -> Path:
    path = tmp_path / "run.ckpt"
    checkpoint.save(path, simple_training(width))
    return path


def test_refuses_a_checkpoint_of_another_model_and_changes_nothing(tmp_path: Path) -> None:
    path, training = saved(tmp_path, width=32), simple_training()
    before = [p.clone() for p in training.model.parameters()]
    with pytest.raises(
        ValueError, match=r"another model: 0.weight is \(32, 64\) there and \(64, 64\) here"
    ):
        checkpoint.load(path, training)
    assert all(torch.equal(a, b) for a, b in zip(before, training.model.parameters(), strict=True))


def test_refuses_another_length_or_precision(tmp_path: Path) -> None:
    path = saved(tmp_path)
    model = models.mlp()
    optimizer = AdamW(lr=0.01).build(model)
    batches = [(torch.randn(4, 64), torch.zeros(4, dtype=torch.long))] * 4
    with pytest.raises(ValueError, match="total is 4, this training's is 8"):
        checkpoint.load(path, train(model, batches, optimizer, epochs=2))
    with pytest.raises(ValueError, match="precision is 'fp32', this training's is 'bf16'"):
        checkpoint.load(path, train(model, batches, optimizer, precision="bf16"))


class Bomb:
    def __reduce__(self) -> tuple:
        return (os.mkdir, (os.environ["LABKIT_BOMB"],))


@pytest.mark.parametrize("wrapped", [False, True])
def test_never_runs_a_pickle(tmp_path: Path, monkeypatch, wrapped: bool) -> None:
    bomb = tmp_path / "went-off"
    monkeypatch.setenv("LABKIT_BOMB", str(bomb))
    path = tmp_path / "run.ckpt"
    if wrapped:  # a proper header around a hostile content
        monkeypatch.setattr(checkpoint, "_readable", lambda _, value: value)
        checkpoint.write_state(path, {"model": Bomb()})
    else:
        path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="not a labkit checkpoint|cannot be read"):
        checkpoint.load(path, simple_training())
    assert not bomb.exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_refuses_a_damaged_file(tmp_path: Path, damage: str) -> None:
    path = saved(tmp_path)
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    path.write_bytes({"truncated": content[:-100], "empty": b""}.get(damage, content))
    with pytest.raises(ValueError, match="damaged|not a labkit checkpoint"):
        checkpoint.load(path, simple_training())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.ckpt"):
        checkpoint.load(tmp_path / "nowhere.ckpt", simple_training())


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write .*file/run\.ckpt"):
        checkpoint.save(tmp_path / "file" / "run.ckpt", simple_training())


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch) -> None:
    path = saved(tmp_path)
    old = path.read_bytes()

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("labkit.files.os.fsync", no_space)
    with pytest.raises(OSError, match=r"cannot write .*run\.ckpt: No space left on device"):
        checkpoint.save(path, simple_training())
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def save_for_ever(path: Path, ready: Event) -> None:
    torch.set_num_threads(1)
    for number in itertools.count(1):
        checkpoint.write_state(path, {"number": torch.full((100_000,), number)})
        ready.set()  # a whole file is there: what a kill finds from now on is no matter of speed


@pytest.mark.timeout(120)
def test_fifty_kills_while_saving_never_break_the_file(tmp_path: Path) -> None:
    """A process saves without pause and is killed at a random moment, fifty times over."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["labkit.training.checkpoint"])
    path, generator = tmp_path / "run.ckpt", random.Random(0)
    for _ in range(50):
        ready = context.Event()
        saver = context.Process(target=save_for_ever, args=(path, ready))
        saver.start()
        assert ready.wait(30)
        time.sleep(generator.uniform(0.0, 0.05))
        saver.kill()
        saver.join(30)
        assert saver.exitcode == -signal.SIGKILL
        saver.close()
        number = checkpoint.read_state(path)["number"]
        assert torch.equal(number, torch.full((100_000,), int(number[0])))


def test_temporary_files_of_killed_saves_do_not_pile_up(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    stale = tmp_path / ".run.ckpt.999999999-1.tmp"
    stale.write_text("half")
    checkpoint.save(path, simple_training())
    assert sorted(tmp_path.iterdir()) == [path]
