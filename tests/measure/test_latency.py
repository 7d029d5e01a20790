"""Latencies are those of forward passes in evaluation mode, of every model in every round."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from labkit.measure import latencies


class Counts(nn.Module):
    """Counts its calls, in the order of all models."""

    def __init__(self, log: list[nn.Module]) -> None:
        super().__init__()
        self.log = log

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training and not torch.is_grad_enabled()
        self.log.append(self)
        return x


def test_every_model_is_called_in_every_round() -> None:
    log: list[nn.Module] = []
    models = {"a": Counts(log), "b": Counts(log)}
    times = latencies(models, torch.ones(1), rounds=4)
    assert {name: len(timing.seconds) for name, timing in times.items()} == {"a": 4, "b": 4}
    assert all(set(log[i : i + 2]) == set(models.values()) for i in range(0, len(log), 2))


def test_statistics_of_a_batch_norm_are_left_alone() -> None:
    norm = nn.BatchNorm1d(3).train()
    latencies({"norm": norm}, torch.randn(8, 3) + 5, rounds=2)
    assert not norm.running_mean.any() and not norm.training


def test_refuses_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="rounds"):
        latencies({"a": nn.Identity()}, torch.ones(1), rounds=0)
