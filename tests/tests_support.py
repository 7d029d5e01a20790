"""Small data and recipes that several test files use."""

import torch

from labkit import models
from labkit.data import ImageData
from labkit.training import SGD, Recipe


def tiny_data(n: int = 80, size: int = 12) -> ImageData:
    """Random images of ten classes, the same for training and test."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, 1, size, size), dtype=torch.uint8, generator=generator)
    labels = torch.arange(n) % 10
    return ImageData("tiny", images, labels, images, labels, tuple("abcdefghij"), 0.5, 0.25)


def tiny_model() -> torch.nn.Module:
    """A conv net of 1,400 parameters."""
    return models.convnet(width=2)


def tiny_recipe(**changes: object) -> Recipe:
    """Ten steps of the tiny model on the tiny data."""
    base = Recipe(tiny_model, tiny_data(), batch_size=8, device="cpu", optimizer=SGD(lr=0.05))
    return base.but(**changes)
