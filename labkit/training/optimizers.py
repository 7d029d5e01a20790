"""Optimizers as values: a recipe says which and how; `build` makes torch's own for a model.

`build` takes the model, not its parameters: rates that differ by layer, groups without weight decay
and optimizers for matrices alone need to know names and shapes.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import nn


@runtime_checkable
class Optimizer(Protocol):
    """What a recipe asks of an optimizer."""

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return torch's optimizer over the model's parameters."""


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with Nesterov momentum and weight decay.

    Raises:
        ValueError: a number out of range.

    Source: Sutskever et al., "On the importance of initialization and momentum in deep learning",
    2013.
    """

    lr: float
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = True

    def __post_init__(self) -> None:
        _check(self.lr, self.weight_decay, momentum=self.momentum)

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return torch's optimizer over the model's parameters."""
        return torch.optim.SGD(
            model.parameters(),
            lr=float(self.lr),
            momentum=float(self.momentum),
            weight_decay=float(self.weight_decay),
            nesterov=self.nesterov and self.momentum > 0,
        )


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay.

    Raises:
        ValueError: a number out of range.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019, algorithm 2.
    """

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        first, second = self.betas
        _check(self.lr, self.weight_decay, **{"betas[0]": first, "betas[1]": second})

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return torch's optimizer over the model's parameters."""
        first, second = map(float, self.betas)
        return torch.optim.AdamW(
            model.parameters(),
            lr=float(self.lr),
            betas=(first, second),
            weight_decay=float(self.weight_decay),
        )


def _check(lr: float, weight_decay: float, **kept: float) -> None:
    if not 0 < lr < math.inf:
        raise ValueError(f"lr must be a positive number, got {lr!r}")
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"weight_decay must be a number from 0 up, got {weight_decay!r}")
    for name, share in kept.items():
        if not 0 <= share < 1:
            raise ValueError(f"{name} must lie in 0 … 1 (1 excluded), got {share!r}")
