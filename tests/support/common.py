"""What several test files use: small data and recipes, rules for exercises."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

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
    """A small conv net.

    Not narrower than 8: the backward pass of a strided 1x1 convolution with 2 to 7 input channels
    in channels_last writes beyond its memory where oneDNN has AVX2 alone.
    """
    return models.convnet(width=8)


def tiny_recipe(**changes: object) -> Recipe:
    """Ten steps of the tiny model on the tiny data."""
    base = Recipe(tiny_model, tiny_data(), batch_size=8, device="cpu", optimizer=SGD(lr=0.05))
    return base.but(**changes)


# The bias of a key shifts all scores of a query alike, so its gradient is rounding noise around 0.
# AdamW would blow that up to full steps; a larger epsilon keeps noise noise.
ADAMW = {"lr": 1e-3, "eps": 1e-6}


def tiny_transformer() -> models.Transformer:
    """A transformer with weights as large as trained ones, so that every gradient counts."""
    torch.manual_seed(0)
    model = models.transformer(50, width=32, depth=2, heads=4, context=12)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


SILLY = [
    *("", "5", "many", [], [1], (1, 2), {}, True, object(), torch.ones(2)),
    *(1j, math.nan, math.inf, -math.inf),
]
"""Answers that no exercise should take, and that no check may stumble over."""


def check_is_sound(check: Callable[..., Any], right: object, wrong: Mapping[Any, str]) -> None:
    """A check accepts the right answer, says the given words of wrong ones, and never crashes."""
    assert check(right).right is True
    assert check(None).right is check(...).right is None
    for answer, message in wrong.items():
        feedback = check(answer)
        assert feedback.right is False and message in feedback.message, (answer, feedback)
    for answer in SILLY:
        assert check(answer).right is not True


def refuses(check: Callable[..., Any], answers: Iterable[object], *context: object) -> None:
    """A check refuses every one of these answers, in words; without an answer it only hints."""
    for answer in answers:
        feedback = check(answer, *context)
        assert feedback.right is False, answer
        assert len(feedback.message) > 10
    for answer in (None, ...):
        assert check(answer, *context).right is None


def sizes_at(low: float, high: float) -> torch.Tensor:
    """Many sizes of gradients, spread evenly over powers of two."""
    return 2.0 ** torch.linspace(low, high, 20_001)
