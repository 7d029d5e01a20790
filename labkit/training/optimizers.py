"""Optimizers as values: a recipe says which and how; `build` makes torch's own for a model.

`build` takes the model, not its parameters: rates that differ by layer, groups without weight decay
and optimizers for matrices alone need to know names and shapes.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn


class Optimizer(Protocol):
    """What a recipe asks of an optimizer."""

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return torch's optimizer over the model's parameters."""


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with Nesterov momentum and weight decay.

    Source: Sutskever et al., "On the importance of initialization and momentum in deep learning",
    2013.
    """

    lr: float
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = True

    def __post_init__(self) -> None:
        _check_lr(self.lr)

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return torch's optimizer over the model's parameters."""
        return torch.optim.SGD(
            model.parameters(),
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov and self.momentum > 0,
        )


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019, algorithm 2.
    """

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        _check_lr(self.lr)

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return torch's optimizer over the model's parameters."""
        return torch.optim.AdamW(
            model.parameters(), lr=self.lr, betas=self.betas, weight_decay=self.weight_decay
        )


def _check_lr(lr: float) -> None:
    if not isinstance(lr, int | float) or not 0 < lr < float("inf"):
        raise ValueError(f"lr must be a positive number, got {lr!r}")
