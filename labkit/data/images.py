"""A labelled set of images in memory, split into training and test."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from labkit.data.batches import Batches, check_images
from labkit.fingerprint import fingerprint


@dataclass(frozen=True, eq=False)
class ImageData:
    """Images as uint8 (n, channels, height, width), labels as int64 (n,), names of the classes.

    `mean` and `std` are those of the whole training set's pixels, on the scale 0 to 1.

    Raises:
        ValueError: a split is empty, its images and labels differ in number, or a label is out of
            range.
        TypeError: images that are not uint8, or labels that are not int64.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    mean: float
    std: float

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            images, labels = getattr(self, f"{split}_images"), getattr(self, f"{split}_labels")
            check_images(images, labels, f"{split}_")
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= len(self.classes):
                raise ValueError(
                    f"{split}_labels must lie in 0 … {len(self.classes) - 1} "
                    f"({len(self.classes)} classes), found {low} … {high}"
                )

    def __repr__(self) -> str:
        height, width = self.train_images.shape[-2:]
        return (
            f"{self.name}({len(self.train_images):,} + {len(self.test_images):,}, {height}x{width})"
        )

    @property
    def train_size(self) -> int:
        """Number of training images."""
        return len(self.train_images)

    @cached_property
    def fingerprint(self) -> str:
        """A text that differs where any pixel or label does."""
        splits = (self.train_images, self.train_labels, self.test_images, self.test_labels)
        return fingerprint((self.name, splits, self.classes, self.mean, self.std))

    def batches(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        memory_format: torch.memory_format = torch.contiguous_format,
        device: torch.device | str = "cpu",
    ) -> Batches:
        """Return training batches, reshuffled each epoch; see `Batches`."""
        return Batches(
            self.train_images,
            self.train_labels,
            batch_size,
            seed=seed,
            mean=self.mean,
            std=self.std,
            memory_format=memory_format,
            device=device,
        )

    def test_batches(
        self,
        batch_size: int = 500,
        *,
        memory_format: torch.memory_format = torch.contiguous_format,
        device: torch.device | str = "cpu",
    ) -> Batches:
        """Return the test images in their own order, none dropped."""
        return Batches(
            self.test_images,
            self.test_labels,
            batch_size,
            mean=self.mean,
            std=self.std,
            shuffle=False,
            memory_format=memory_format,
            device=device,
        )
