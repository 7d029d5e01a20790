"""Fashion-MNIST as it ships, and batches of it."""

import gzip
import shutil
from pathlib import Path

import pytest
import torch
from torchvision.datasets import FashionMNIST

from labkit import data
from labkit.data import Batches, ImageData
from labkit.data.fashion import CLASSES, FILES, MEAN, STD, _load, _verified
from labkit.data.files import data_root, expected_hashes, unpack_verified
from labkit.files import sha256


def test_the_whole_set_has_the_published_statistics() -> None:
    fashion = data.fashion()
    assert fashion.train_images.shape == (60_000, 1, 28, 28)
    assert fashion.test_images.shape == (10_000, 1, 28, 28)
    assert torch.bincount(fashion.train_labels).tolist() == [6000] * 10
    assert torch.bincount(fashion.test_labels).tolist() == [1000] * 10
    pixels = fashion.train_images.float() / 255
    assert float(pixels.mean()) == pytest.approx(MEAN, abs=5e-5)
    assert float(pixels.std()) == pytest.approx(STD, abs=5e-5)
    assert fashion.classes[0] == "T-shirt/top"


def test_the_files_are_read_as_torchvision_reads_them() -> None:
    root = data_root()
    for split, train in zip(_load(root), (True, False), strict=True):
        theirs = FashionMNIST(str(root), train=train, download=False)
        assert torch.equal(split[0].squeeze(1), theirs.data)
        assert torch.equal(split[1], theirs.targets)
        assert list(CLASSES) == theirs.classes


def test_a_part_is_balanced_repeats_and_grows() -> None:
    small, again = data.fashion(train=200, test=100), data.fashion(train=200, test=100)
    large = data.fashion(train=400, test=100)
    assert torch.bincount(small.train_labels).tolist() == [20] * 10
    assert torch.equal(small.train_images, again.train_images)
    assert not torch.equal(small.train_images, data.fashion(train=200, seed=1).train_images)
    in_large = {image.numpy().tobytes() for image in large.train_images}
    assert all(image.numpy().tobytes() in in_large for image in small.train_images)


@pytest.mark.parametrize("size", [14, 28, 40])
def test_image_size(size: int) -> None:
    resized = data.fashion(train=100, test=100, image_size=size)
    assert resized.train_images.shape == (100, 1, size, size)
    assert resized.train_images.dtype == torch.uint8
    original = data.fashion(train=100, test=100).train_images.float().mean()
    assert float(resized.train_images.float().mean()) == pytest.approx(float(original), rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": 0}, "train must be a whole number"),
        ({"train": 15}, "train must be a multiple of 10"),
        ({"train": 60_010}, "train must be a multiple of 10 from 10 to 60000, got 60010"),
        ({"test": 20_000}, "test must be"),
        ({"image_size": -3}, "image_size"),
    ],
)
def test_fashion_refuses(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.fashion(**arguments)


def batches(**arguments) -> Batches:
    images = torch.arange(25, dtype=torch.uint8).reshape(25, 1, 1, 1).expand(25, 1, 4, 4)
    return Batches(images.contiguous(), torch.arange(25), 4, **arguments)


def labels_of(epoch: Batches) -> list[int]:
    return [int(label) for _, labels in epoch for label in labels]


def test_an_epoch_visits_each_image_once_in_an_order_of_its_own() -> None:
    stream = batches(seed=3)
    first, second = labels_of(stream), labels_of(stream)
    assert len(stream) == 6
    assert len(set(first)) == len(first) == 24
    assert first != second
    repeat = batches(seed=3)
    assert [labels_of(repeat), labels_of(repeat)] == [first, second]
    assert labels_of(batches(seed=4)) != first
    repeat.set_epoch(1)
    assert labels_of(repeat) == second


def test_evaluation_keeps_order_and_drops_nothing() -> None:
    assert labels_of(batches(shuffle=False)) == list(range(25))
    assert len(batches(shuffle=False)) == 7


def test_pixels_are_normalized_and_belong_to_their_labels() -> None:
    for images, labels in batches(mean=0.1, std=0.5):
        expected = (labels.float() / 255 - 0.1) / 0.5
        torch.testing.assert_close(images.mean(dim=(1, 2, 3)), expected)


def test_memory_format() -> None:
    fashion = data.fashion(train=100, test=100)
    colour = fashion.train_images.repeat(1, 3, 1, 1)
    layout = torch.channels_last
    images, _ = next(iter(Batches(colour, fashion.train_labels, 10, memory_format=layout)))
    assert images.is_contiguous(memory_format=layout)
    assert not images.is_contiguous()


def test_batches_refuse() -> None:
    images, labels = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.long)
    with pytest.raises(TypeError, match=r"uint8 .* got float32"):
        Batches(images.float(), labels, 2)
    with pytest.raises(ValueError, match="differ in number: 4 and 3"):
        Batches(images, labels[:3], 2)
    with pytest.raises(ValueError, match="images is empty"):
        Batches(images[:0], labels[:0], 2)
    with pytest.raises(ValueError, match="batch_size 5 is larger"):
        Batches(images, labels, 5)
    with pytest.raises(ValueError, match="batch_size must be"):
        Batches(images, labels, -1)


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range_are_refused(label: int) -> None:
    images, labels = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 2, label])
    with pytest.raises(ValueError, match=r"train_labels must lie in 0 … 2 \(3 classes\)"):
        ImageData("x", images, labels, images, labels, ("a", "b", "c"), 0.5, 0.5)
    with pytest.raises(ValueError, match="train_images is empty"):
        ImageData("x", images[:0], labels[:0], images, labels, ("a", "b", "c"), 0.5, 0.5)


@pytest.fixture
def copied_data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    name = FILES[3]  # the smallest
    (root / name).parent.mkdir(parents=True)
    shutil.copy(data_root() / "SHA256SUMS", root)
    shutil.copy(data_root() / f"{name}.gz", root / f"{name}.gz")
    return root


def test_unpacks_once_and_mends_a_damaged_copy(copied_data: Path) -> None:
    name = FILES[3]
    target = unpack_verified(copied_data, name)
    with gzip.open(copied_data / f"{name}.gz") as packed:
        assert target.read_bytes() == packed.read()
    stamp = target.stat().st_mtime_ns
    assert unpack_verified(copied_data, name).stat().st_mtime_ns == stamp
    target.write_bytes(target.read_bytes()[:-1])  # an interrupted unpacking
    assert sha256(unpack_verified(copied_data, name)) == expected_hashes(copied_data)[name]


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_file_is_named_with_the_mend(copied_data: Path, damage: str) -> None:
    packed = copied_data / f"{FILES[3]}.gz"
    content = bytearray(packed.read_bytes())
    content[len(content) // 2] ^= 1
    packed.write_bytes(content[:-7] if damage == "truncated" else content)
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte\.gz is damaged.*git checkout"):
        unpack_verified(copied_data, FILES[3])


def test_a_missing_file_is_named_with_the_mend(
    copied_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copied_data / f"{FILES[3]}.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"ubyte\.gz is missing.*git checkout"):
        unpack_verified(copied_data, FILES[3])
    monkeypatch.setenv("LABKIT_DATA", str(copied_data / "nowhere"))
    with pytest.raises(FileNotFoundError, match="LABKIT_DATA"):
        data.fashion()


@pytest.mark.parametrize("error", [PermissionError, OSError])
def test_data_that_cannot_be_unpacked_are_read_packed(
    error: type[OSError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a shared installation that is read-only, or on a disk that is full."""
    here = tmp_path / "data"
    shutil.copytree(
        data_root(), here, ignore=shutil.ignore_patterns("*-ubyte", "speeches", "*.py", "*.md")
    )
    there = sorted(here.rglob("*"))

    def refuse(target: Path) -> None:
        raise error(30, f"cannot write {target}")

    monkeypatch.setattr("labkit.data.files.atomic_path", refuse)
    expected = data.fashion(train=100, test=100)
    monkeypatch.setenv("LABKIT_DATA", str(here))
    found = data.fashion(train=100, test=100)
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    assert sorted(here.rglob("*")) == there
    (here / "SHA256SUMS").write_text("0  other\n\nword\n")
    _verified.cache_clear()
    with pytest.raises(ValueError, match="SHA256SUMS does not list Fashion.*another version"):
        data.fashion(train=100, test=100)


def test_an_empty_variable_means_the_data_that_ship(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABKIT_DATA", raising=False)
    expected = data_root()
    monkeypatch.setenv("LABKIT_DATA", "")
    assert data_root() == expected
