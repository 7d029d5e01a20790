"""Checkpoints saved on some ranks and loaded on others, split in another way, to the bit."""

from __future__ import annotations

import os
import pickle
import signal

import pytest
import torch
from support.parallel import check_equal, content
from torch import nn
from torch.nn import functional as F

from labkit import models
from labkit.distributed import RankError, init, launch
from labkit.distributed.parallel import sharded_checkpoint
from labkit.distributed.parallel.sharded_checkpoint import load, save
from labkit.distributed.parallel.stages import pipeline_stage


def net(seed):
    """A transformer, and a batch norm for its buffers, one of them without a dimension."""
    torch.manual_seed(seed)
    return nn.Sequential(
        models.transformer(11, width=8, depth=2, heads=2, context=6), nn.BatchNorm1d(6)
    )


def split(model, how, size):
    """Split the model over the ranks in one of four ways."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import parallel

    if how == "sharded":
        fully_shard(model, mesh=init_device_mesh("cpu", (size,)))
    if how in ("tensor", "both"):
        shape = (2, size // 2) if how == "both" else (1, size)
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=("data", "tensor"))
        plan = {"mlp.up": parallel.ColwiseParallel(), "mlp.down": parallel.RowwiseParallel()}
        for block in model[0].blocks:
            parallel.parallelize_module(block, mesh["tensor"], plan)
        if how == "both":
            fully_shard(model, mesh=mesh["data"])
    return model


def train(model, optimizer, steps=2):
    for number in range(steps):
        tokens = torch.randint(11, (4, 6), generator=torch.Generator().manual_seed(number))
        F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    optimizer.param_groups[0]["lr"] = 0.1 + 0.2  # not a round number


def train_and_save(folder, ways):
    with init() as world:
        contents = {}
        for how in ways:
            model = split(net(seed=0), how, world.size)
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
            train(model, optimizer)
            save(folder / how, model, optimizer, step=2, name="a run")
            contents[how] = content(model, optimizer)
        return contents


def load_into_others(folder, pairs):
    with init() as world:
        contents = []
        for saved, how in pairs:
            model = split(net(seed=world.rank + 1), how, world.size)
            optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
            assert load(folder / saved, model, optimizer) == {"step": 2, "name": "a run"}
            contents.append(content(model, optimizer))
        return contents


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with three checkpoints, and what they must bring back."""
    folder = tmp_path_factory.mktemp("states")
    contents = launch(train_and_save, 2, deadline=60, folder=folder, ways=["sharded", "tensor"])[0]
    contents |= launch(train_and_save, 4, deadline=60, folder=folder, ways=["both"])[0]
    return folder, contents


SHARDED = [("sharded", "sharded"), ("sharded", "both")]  # how it was saved, how it is loaded
TENSOR = [("tensor", "plain"), ("tensor", "sharded"), ("both", "tensor")]
PAIRS = {1: [(how, "plain") for how in ("sharded", "tensor", "both")], 4: SHARDED + TENSOR}


@pytest.mark.parametrize("ranks", PAIRS)
def test_loaded_on_one_and_on_four_ranks_to_the_bit(saved, ranks):
    folder, contents = saved
    for found in launch(load_into_others, ranks, deadline=60, folder=folder, pairs=PAIRS[ranks]):
        for (name, _), one in zip(PAIRS[ranks], found, strict=True):
            check_equal(one, contents[name])


def test_one_process_needs_no_process_group_and_opens_no_pickle(saved, tmp_path, monkeypatch):
    folder, contents = saved

    def refuse(*_, **__):
        raise AssertionError("a pickle was opened")

    for module, name in ((pickle, "load"), (pickle, "loads"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    model = net(seed=5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    assert load(str(folder / "sharded"), model, optimizer)["step"] == 2
    check_equal(content(model, optimizer), contents["sharded"])
    save(tmp_path / "again", model)
    assert {path.suffix for path in (tmp_path / "again").rglob("*.*")} == {".json", ".safetensors"}
    other = net(seed=6)
    assert load(tmp_path / "again", other) == {}
    assert all(map(torch.equal, other.state_dict().values(), model.state_dict().values()))


def test_stages_of_a_pipeline_fit_more_stages_and_one(tmp_path):
    def save_stage():
        with init() as world:
            model = models.transformer(11, width=8, depth=2, heads=2, context=6)
            nn.init.constant_(model.head.weight, 7 + world.rank)
            mine = pipeline_stage(model, world.rank, world.size)
            optimizer = torch.optim.SGD(mine.parameters(), lr=0.5 * (world.rank + 1))
            save(tmp_path / "run", mine, optimizer)
            return mine.state_dict()

    def load_stage():
        with init() as world:
            torch.manual_seed(world.rank)
            model = models.transformer(11, width=8, depth=2, heads=2, context=6)
            mine = pipeline_stage(model, world.rank, world.size)
            load(tmp_path / "run", mine)
            return mine.state_dict()

    first, second = launch(save_stage, 2, deadline=60)
    expected = first | second
    for ranks in (1, 4):
        found = [state.items() for state in launch(load_stage, ranks, deadline=60)]
        names = [name for state in found for name, _ in state]
        assert sorted(names) == sorted(expected)
        assert all(torch.equal(value, expected[name]) for state in found for name, value in state)


def test_a_killed_save_leaves_the_old_checkpoint(tmp_path):
    def save_again(lr, killed):
        with init() as world:
            if killed and world.rank == 1:
                sharded_checkpoint.finish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            model = split(nn.Linear(3, 5), "sharded", world.size)
            nn.init.constant_(model.weight, lr)
            save(tmp_path / "run", model, lr=lr)

    launch(save_again, 2, deadline=60, lr=1.0, killed=False)
    for _ in range(2):
        with pytest.raises(RankError, match="rank 1 of 2 was killed by SIGKILL"):
            launch(save_again, 2, deadline=60, lr=2.0, killed=True)
        assert len(list((tmp_path / "run").glob("data-*"))) == 2  # what is left does not pile up
    model = nn.Linear(3, 5)
    assert load(tmp_path / "run", model) == {"lr": 1.0}
    assert (model.weight == 1).all()
    launch(save_again, 2, deadline=60, lr=3.0, killed=False)
    assert len(list((tmp_path / "run").iterdir())) == 2  # the index and the new data
    assert load(tmp_path / "run", model) == {"lr": 3.0}
    assert (model.weight == 3).all()


# ---- one process


def test_any_module_in_any_memory_format(tmp_path):
    from torchvision.models import resnet18

    model = resnet18().to(memory_format=torch.channels_last)
    model.tied = model.fc
    model.low = nn.Linear(3, 3, dtype=torch.bfloat16)
    other = resnet18().to(memory_format=torch.channels_last)
    other.tied, other.low = other.fc, nn.Linear(3, 3, dtype=torch.bfloat16)
    save(tmp_path / "run", model)
    load(tmp_path / "run", other)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
        assert tensor.stride() == other.state_dict()[name].stride()
    assert other.tied.weight is other.fc.weight


@pytest.mark.parametrize(
    "kind", [torch.optim.SGD, lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, nesterov=True)]
)
def test_optimizers(tmp_path, kind):
    model, other = net(0), net(1)
    optimizer, another = kind(model.parameters(), lr=0.1), kind(other.parameters(), lr=9.0)
    train(model, optimizer)
    save(tmp_path / "run", model, optimizer)
    other(torch.zeros(2, 6, dtype=torch.int64)).sum().backward()  # gradients must not disturb
    load(tmp_path / "run", other, another)
    check_equal(content(other, another), content(model, optimizer))
    assert all(p.grad is None for p in other.parameters())
    train(model, optimizer)
    train(other, another)
    check_equal(content(other, another), content(model, optimizer))  # and it goes on alike


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (nn.Linear(4, 2), r"model\.weight is \['torch.float32', \[2, 3\]\] in it and"),
        (nn.Linear(3, 2, bias=False), r"the model or optimizer here has no model\.bias"),
        (nn.Sequential(nn.Linear(3, 2)), r"it has no model\.0\.bias"),
        (nn.Linear(3, 2, dtype=torch.float64), r"model\.bias is \['torch.float32', \[2\]\]"),
    ],
)
def test_another_model_is_refused(tmp_path, other, words):
    save(tmp_path / "run", nn.Linear(3, 2))
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(ValueError, match=f"checkpoint is of another model: .*{words}"):
        load(tmp_path / "run", other)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_damage_is_told(tmp_path):
    save(tmp_path / "run", nn.Linear(3, 2))
    (file,) = (tmp_path / "run").glob("data-*/*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="safetensors is damaged"):
        load(tmp_path / "run", nn.Linear(3, 2))
    file.unlink()
    with pytest.raises(ValueError, match="safetensors is missing"):
        load(tmp_path / "run", nn.Linear(3, 2))
    (tmp_path / "run" / "checkpoint.json").write_text("{")
    with pytest.raises(ValueError, match="no finished checkpoint"):
        load(tmp_path / "run", nn.Linear(3, 2))


def test_missing_and_foreign_folders(tmp_path):
    model = nn.Linear(1, 1)
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        load(tmp_path / "none", model)
    with pytest.raises(ValueError, match=r"no finished checkpoint of many ranks: checkpoint\.json"):
        load(tmp_path, model)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(
        ValueError, match=r"folder must be new, or hold a checkpoint: .* notes\.txt"
    ):
        save(tmp_path, model)
    with pytest.raises(ValueError, match="folder must be a folder, got the file"):
        save(tmp_path / "notes.txt", model)
    (tmp_path / "checkpoint.json").write_text('{"format": "other"}')
    for call in (save, load):
        with pytest.raises(ValueError, match=r"checkpoint\.json is of something else"):
            call(tmp_path, model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.json", "notes.txt"]


def test_numbers_must_be_fit_for_json(tmp_path):
    with pytest.raises(TypeError, match="numbers must be of type .*, got <object"):
        save(tmp_path / "run", nn.Linear(1, 1), step=object())
    assert not (tmp_path / "run").exists()
