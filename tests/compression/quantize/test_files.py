"""Quantized models as files: the same outputs to the bit, the predicted size, clear refusals."""

import errno
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.quantizing import pictures, trained
from torch import nn

from labkit import models
from labkit.compression import quantize
from labkit.compression.quantize import files
from labkit.compression.quantize.file_size import file_bytes, header_bytes, predicted_bytes
from labkit.compression.quantize.int8_model import Int8Model

BATCHES = pictures(2)
IMAGES = BATCHES[0][0]


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return trained()


@pytest.fixture(scope="module")
def mixed(net: nn.Module) -> Int8Model:
    return quantize.static(net, BATCHES, ranges="percentile", keep_float=["blocks.0", "head"])


@pytest.fixture(scope="module")
def static_file(mixed: Int8Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "static.safetensors"
    quantize.save(mixed, path)
    return path


def header(path: Path) -> tuple[int, dict[str, object]]:
    """The bytes before the tensors, and what they say."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return 8 + length, json.loads(content[8 : 8 + length])


def test_a_static_model_comes_back_to_the_bit(mixed: Int8Model, static_file: Path) -> None:
    fresh = models.convnet(8).train()
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    loaded = quantize.load(static_file, fresh)
    assert torch.equal(loaded(IMAGES), mixed(IMAGES))
    assert torch.equal(loaded(IMAGES[:3]), mixed(IMAGES[:3]))
    assert isinstance(loaded, Int8Model)
    with torch.no_grad():
        reference = loaded.reference.graph(IMAGES)
        assert torch.equal(reference, mixed.reference.graph(IMAGES))
    assert loaded.reference.keep_float == ("blocks.0", "head") and fresh.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in fresh.state_dict().items())


def test_a_dynamic_model_comes_back_to_the_bit(tmp_path: Path) -> None:
    dynamic = quantize.dynamic(nn.Linear(6, 3), torch.randn(2, 6))
    quantize.save(dynamic, tmp_path / "file")
    inputs = torch.randn(5, 6)
    loaded = quantize.load(tmp_path / "file", nn.Linear(6, 3))
    assert torch.equal(loaded(inputs), dynamic(inputs))


@pytest.mark.parametrize(("bits", "group"), [(8, None), (4, 32), (3, None)])
def test_weights_only_come_back_to_the_bit(
    net: nn.Module, tmp_path: Path, bits: int, group: int | None
) -> None:
    smaller = quantize.weights(net, bits, group, keep_float=("stem",)).eval()
    quantize.save(smaller, tmp_path / "file")
    loaded = quantize.load(tmp_path / "file", models.convnet(8).eval())
    assert torch.equal(loaded(IMAGES), smaller(IMAGES))
    assert torch.equal(loaded.stem.weight, net.stem.weight)


def resnet() -> nn.Module:
    from torchvision.models import resnet18

    return resnet18(num_classes=10)


def attention() -> nn.Module:
    return nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)


@pytest.mark.parametrize(("bits", "group"), [(8, None), (4, None), (4, 32), (5, 7)])
@pytest.mark.parametrize("build", [lambda: models.convnet(6), resnet, attention])
def test_the_tensors_of_a_weight_only_file_take_what_was_predicted(
    tmp_path: Path, build: Callable[[], nn.Module], bits: int, group: int | None
) -> None:
    model, path = build(), tmp_path / "file"
    quantize.save(quantize.weights(model, bits, group), path)
    assert path.stat().st_size - header(path)[0] == predicted_bytes(model, bits, group)


@pytest.mark.parametrize("width", [32, 64])
def test_a_static_file_takes_what_was_predicted_and_a_quarter_of_the_float_one(
    tmp_path: Path, width: int
) -> None:
    model, path = models.convnet(width), tmp_path / "file"
    images = torch.randn(2, 1, 8, 8)
    quantize.save(quantize.static(model, [(images, None)]), path)
    save_file(model.state_dict(), tmp_path / "float")
    size, (before_tensors, _) = path.stat().st_size, header(path)
    assert size - before_tensors == predicted_bytes(model, static=True)
    assert before_tensors < 0.02 * size
    assert (tmp_path / "float").stat().st_size / size > 3.8


def test_a_static_transformer_takes_what_was_predicted(tmp_path: Path) -> None:
    model = models.transformer(vocabulary=32, width=16, depth=1, heads=2, context=8)
    tokens, path = torch.randint(32, (2, 8)), tmp_path / "file"
    quantize.save(quantize.static(model, [(tokens, tokens)]), path)
    assert path.stat().st_size - header(path)[0] == predicted_bytes(model, static=True)


class Twice(nn.Module):
    """A convolution that two norms read, one that is read plainly too, and layers nobody calls."""

    def __init__(self) -> None:
        super().__init__()
        self.once, self.twice = (nn.Conv2d(1, 3, 3, bias=bias) for bias in (True, False))
        self.up = nn.ConvTranspose2d(3, 3, 3)
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(5))
        self.head, self.unused = nn.Linear(3, 2), nn.Linear(9, 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = self.norms[0](self.twice(x)) + self.norms[1](self.twice(-x))
        plain = self.once(x)
        up = self.norms[4](self.up(self.norms[3](plain + self.norms[2](plain)).relu()))
        return self.head((seen + up[..., 1:-1, 1:-1]).mean((2, 3)))


def synchronized() -> nn.Module:
    return nn.SyncBatchNorm.convert_sync_batchnorm(models.convnet(4))


@pytest.mark.parametrize("build", [Twice, synchronized])
def test_a_static_file_holds_what_is_called_and_folded_once_for_each_norm(
    tmp_path: Path, build: Callable[[], nn.Module]
) -> None:
    torch.manual_seed(0)
    model, path, images = build(), tmp_path / "file", torch.randn(4, 1, 8, 8)
    static = quantize.static(model, [(images, None)])
    quantize.save(static, path)
    assert path.stat().st_size - header(path)[0] == predicted_bytes(model, static=True)
    assert torch.equal(quantize.load(path, build())(images), static(images))


def test_predictions_that_cannot_be_made() -> None:
    model = models.convnet(4)
    for arguments in ({"bits": 4}, {"group": 32}):
        with pytest.raises(ValueError, match="static model has 8 bits and no groups"):
            predicted_bytes(model, static=True, **arguments)
    with pytest.raises(ValueError, match="bits must be"):
        predicted_bytes(model, 9)


def test_other_files_and_architectures_are_refused(
    net: nn.Module, static_file: Path, tmp_path: Path
) -> None:
    for wrong, message in (
        (models.convnet(16), r"ConvNet given: .*bias should be \(16,\) .* the file has \(8,\)"),
        (models.mlp(), "quantized ConvNet that does not fit the .* given"),
    ):
        with pytest.raises(ValueError, match=message):
            quantize.load(static_file, wrong)
    quantize.save(quantize.weights(net), tmp_path / "weights")
    with pytest.raises(ValueError, match=r"does not fit the ConvNet given: .*should be"):
        quantize.load(tmp_path / "weights", models.convnet(16))
    save_file(net.state_dict(), tmp_path / "plain")
    with pytest.raises(ValueError, match="not written by quantize.save"):
        quantize.load(tmp_path / "plain", net)
    whole = static_file.read_bytes()
    for count in (0, 5, 100, len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:count])
        with pytest.raises(ValueError, match="cut is no whole safetensors file"):
            quantize.load(tmp_path / "cut", net)
    with pytest.raises(FileNotFoundError, match="absent"):
        quantize.load(tmp_path / "absent", net)


class Versioned(nn.Linear):
    """A layer that asks a loader for a version, as torchvision's MNASNet does."""

    _version = 2

    def _load_from_state_dict(self, state: Any, prefix: str, metadata: Any, *rest: Any) -> None:
        if metadata.get("version") != 2:
            raise ValueError("version should be 2")
        super()._load_from_state_dict(state, prefix, metadata, *rest)


def test_layers_that_ask_for_a_version_come_back(tmp_path: Path) -> None:
    smaller, inputs = quantize.weights(nn.Sequential(Versioned(6, 3))), torch.randn(2, 6)
    quantize.save(smaller, tmp_path / "file")
    loaded = quantize.load(tmp_path / "file", nn.Sequential(Versioned(6, 3)))
    assert torch.equal(loaded(inputs), smaller(inputs))


class Remembers(nn.Linear):
    """A layer whose state is not of tensors alone."""

    def get_extra_state(self) -> dict[str, int]:
        return {"seen": 3}


def test_a_state_that_no_file_holds_is_refused(tmp_path: Path) -> None:
    smaller = quantize.weights(nn.Sequential(Remembers(6, 3)))
    with pytest.raises(ValueError, match=r"no tensor, .*: 0\._extra_state"):
        quantize.save(smaller, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["dynamic", "weights"])
def test_no_bit_of_a_file_can_change_without_a_word(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    layer, inputs, path = nn.Linear(3, 2), torch.randn(2, 3), tmp_path / "file"
    small = quantize.weights(layer) if kind == "weights" else quantize.dynamic(layer, inputs)
    quantize.save(small, path)
    whole = path.read_bytes()
    for place in range(8, len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="file (is|holds)"):
            files._read(path)


def test_what_a_killed_save_leaves_is_cleared_and_errors_name_the_target(
    tmp_path: Path, net: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    smaller, path = quantize.weights(net), tmp_path / "file"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL and len(list(tmp_path.iterdir())) == 1
    quantize.save(smaller, path)
    assert [left.name for left in tmp_path.iterdir()] == ["file"]
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=f"cannot write {path}: No space left"):
        quantize.save(smaller, path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(OSError, match=f"cannot write {path}/below"):
        quantize.save(smaller, path / "below")


KILLED = """
import os, signal, sys
from pathlib import Path
from torch import nn
from labkit.compression import quantize
write = Path.write_bytes
def half(path, content):
    write(path, content[: len(content) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
Path.write_bytes = half
quantize.save(quantize.weights(nn.Linear(9, 9)), sys.argv[1])
"""


def test_a_float_model_is_not_saved_and_an_older_file_stays(
    net: nn.Module, static_file: Path
) -> None:
    before = static_file.read_bytes()
    with pytest.raises(TypeError, match=r"must come from quantize.static, .* got ConvNet"):
        quantize.save(net, static_file)
    assert static_file.read_bytes() == before and len(list(static_file.parent.iterdir())) == 1


def test_file_bytes_are_those_of_the_file(tmp_path):
    model, path = models.convnet(4), tmp_path / "model.safetensors"
    state = model.state_dict()
    numbers = sum(tensor.nbytes for tensor in state.values())
    assert 0 < file_bytes(model) - numbers < 100 * len(state)  # the header: names and shapes
    packed = quantize.weights(model, bits=4)
    quantize.save(packed, path)
    assert file_bytes(packed) == path.stat().st_size < numbers


def test_header_and_tensors_are_the_whole_file(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(5), "b": torch.zeros(3)}, tmp_path / "x.safetensors")
    header = header_bytes(tmp_path / "x.safetensors")
    assert header + 4 * 8 == (tmp_path / "x.safetensors").stat().st_size
