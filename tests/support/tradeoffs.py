"""Models whose answers are known: each image is its own number and its label."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn

from labkit.compare import Tradeoff

CLASSES = 10


class Planted(nn.Module):
    """Answers wrongly on the images whose numbers are in `wrong`, after a sleep."""

    def __init__(self, wrong: range | tuple[int, ...] = (), seconds: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("wrong", torch.tensor(list(wrong), dtype=torch.float32))
        self.seconds = seconds
        self.seen: list[tuple[int, bool, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes) for x (batch, 2): number and label."""
        self.seen.append((int(x[0, 0]), self.training, torch.is_grad_enabled()))
        time.sleep(self.seconds)
        answer = (x[:, 1] + torch.isin(x[:, 0], self.wrong)).long() % CLASSES
        return nn.functional.one_hot(answer, CLASSES).float()


def images(count: int) -> Tensor:
    """Return (count, 2): number and label of each image."""
    numbers = torch.arange(float(count))
    return torch.stack([numbers, numbers % CLASSES], dim=1)


def batches(count: int, size: int) -> list[tuple[Tensor, Tensor]]:
    """Return `count` images in batches with their labels."""
    return [(part, part[:, 1].long()) for part in images(count).split(size)]


def made(variants: Any = None, count: int = 100, size: int = 32, **other: Any) -> Tradeoff:
    """A tradeoff of two models: wrong on the images 0 to 9, and on 5 to 24."""
    if variants is None:
        variants = {"base": Planted(range(10)), "small": Planted(range(5, 25))}
    arguments = {"test": batches(count, size), "example": images(8) - 1, "rounds": 6, **other}
    return Tradeoff(variants, **arguments)


def done(tradeoff: Tradeoff) -> Tradeoff:
    """Do all its work."""
    for _ in tradeoff:
        pass
    return tradeoff
