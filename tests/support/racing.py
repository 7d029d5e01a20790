"""Recipes for races: a model that draws random numbers, and a task that is scored by its losses."""

from __future__ import annotations

import torch
from support.common import tiny_recipe
from torch import nn

from labkit import models
from labkit.training import Recipe
from labkit.training.task import LOSS, classify


class Dropping(nn.Module):
    """A network that draws random numbers, as dropout does, so that order could matter."""

    def __init__(self) -> None:
        super().__init__()
        self.net = models.convnet(width=8)
        self.drop = nn.Dropout(0.2)
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen.append(x.clone())
        return self.net(self.drop(x))


def recipe(**changes: object) -> Recipe:
    """Ten steps of that model on the tiny data."""
    return tiny_recipe(**{"model": Dropping, **changes})


class Losses(classify):
    """Classification, scored by the loss of each image."""

    metric = LOSS

    def score(self, model: nn.Module, batch: object) -> torch.Tensor:
        inputs, labels = batch  # type: ignore[misc]
        return nn.functional.cross_entropy(model(inputs), labels, reduction="none")
