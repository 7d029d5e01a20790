"""Batches from memory: shuffled anew each epoch, the same again from the same seed.

Fashion-MNIST fits into memory forty times over, so no file, process or queue is needed: an epoch is
a permutation of indices, and a batch is a slice of it. Images stay uint8 (a quarter of the memory)
and become normalised float32 when their batch is due; that costs well under 1 % of a step.

The order of epoch e depends on (seed, e) alone, not on what was drawn before. That is what lets a
training resume in mid-epoch, and two trainings see the same batches.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from labkit.checks import check_positive_int, device_of, form
from labkit.seeds import check_seed


class EpochBatches(ABC):
    """An iterable of (inputs, targets) in a fixed number of samples; an iteration is an epoch.

    The last batch of a training epoch is dropped when it is incomplete, so that all steps weigh
    the same; with `shuffle=False` (evaluation) nothing is dropped.

    Args:
        count: number of samples.
        batch_size: samples in a batch.
        seed: order of the epochs.
        shuffle: new order each epoch, or the given order always.
        device: where the batches are delivered.

    Raises:
        ValueError: `batch_size` is not a positive whole number, or larger than `count`; a seed out
            of range; no such device.
    """

    def __init__(
        self, count: int, batch_size: int, seed: int, shuffle: bool, device: torch.device | str
    ) -> None:
        check_positive_int("batch_size", batch_size)
        check_seed(seed)
        if shuffle and batch_size > count:
            raise ValueError(f"batch_size {batch_size} is larger than the data ({count})")
        self.count, self.batch_size = count, int(batch_size)
        self.seed, self.shuffle, self.device = int(seed), shuffle, device_of(device)
        self._next_epoch = 0

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        full, rest = divmod(self.count, self.batch_size)
        return full if self.shuffle else full + bool(rest)

    def set_epoch(self, epoch: int) -> None:
        """Choose which epoch the next iteration is (as torch's DistributedSampler does)."""
        self._next_epoch = epoch

    def order(self, epoch: int) -> Tensor:
        """Return the indices (count,) in the order in which `epoch` visits them."""
        if not self.shuffle:
            return torch.arange(self.count)
        generator = torch.Generator().manual_seed((self.seed << 20) + epoch)
        return torch.randperm(self.count, generator=generator)

    def indices(self) -> Iterator[Tensor]:
        """Yield the indices of each batch of the next epoch."""
        order = self.order(self._next_epoch)
        self._next_epoch += 1
        yield from torch.split(order, self.batch_size)[: len(self)]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for indices in self.indices():
            yield self.batch(indices)

    @abstractmethod
    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs and the targets at `indices`."""


class Batches(EpochBatches):
    """An iterable of (images, labels); each new iteration is the next epoch, see `EpochBatches`.

    images: float32 (batch, channels, height, width), (pixel / 255 - mean) / std.
    labels: int64 (batch,).

    Args:
        images: uint8 (n, channels, height, width).
        labels: int64 (n,).
        batch_size: images in a batch.
        seed: order of the epochs.
        mean, std: of the pixels, on the scale 0 to 1.
        shuffle: new order each epoch, or the given order always.
        memory_format: `torch.contiguous_format` or `torch.channels_last`.
        device: where the batches are delivered.

    Raises:
        ValueError: empty data, lengths that differ, a batch larger than the data, a std that is not
            positive.
        TypeError: images that are not uint8, or labels that are not int64.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        *,
        seed: int = 0,
        mean: float = 0.0,
        std: float = 1.0,
        shuffle: bool = True,
        memory_format: torch.memory_format = torch.contiguous_format,
        device: torch.device | str = "cpu",
    ) -> None:
        check_images(images, labels)
        if not (math.isfinite(mean) and 0 < std < math.inf):
            raise ValueError(f"mean must be a number and std a positive one, got {mean!r}, {std!r}")
        super().__init__(len(images), batch_size, seed, shuffle, device)
        self.images, self.labels, self.mean, self.std = images, labels, mean, std
        self.memory_format = memory_format

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the normalised images and the labels at `indices`."""
        images = self.images[indices].to(self.device)
        normal = images.float().div_(255).sub_(self.mean).div_(self.std)
        return normal.contiguous(memory_format=self.memory_format), self.labels[indices].to(
            self.device
        )


def check_images(images: Tensor, labels: Tensor, split: str = "") -> None:
    """Refuse what is no set of labelled images.

    Args:
        images, labels: see `Batches`.
        split: before their names in the errors, such as "train_".

    Raises:
        TypeError: images that are not uint8, or labels that are not int64.
        ValueError: no images, or numbers that differ.
    """
    if images.dtype != torch.uint8 or images.dim() != 4:
        wanted = "uint8 (n, channels, height, width)"
        raise TypeError(f"{split}images must be {wanted}, got {form(images)}")
    if labels.dtype != torch.int64 or labels.dim() != 1:
        raise TypeError(f"{split}labels must be int64 (n,), got {form(labels)}")
    if not len(images):
        raise ValueError(f"{split}images is empty")
    if len(images) != len(labels):
        raise ValueError(
            f"{split}images and {split}labels differ in number: {len(images)} and {len(labels)}"
        )
