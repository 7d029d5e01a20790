"""How far apart two models or tensors are."""

import math

import pytest
import torch
from torch import nn

from labkit.compression.agreement import decibels, distance, in_decibels, largest_difference


def test_distance_and_decibels() -> None:
    exact = torch.tensor([3.0, 4.0])
    assert distance(exact, exact + torch.tensor([0.0, 0.5])) == pytest.approx(0.1)
    assert decibels(exact, exact * 0.9) == pytest.approx(20)
    assert decibels(exact, exact * 0.99) == pytest.approx(40)
    assert decibels(exact, exact) == math.inf
    assert in_decibels(0.0, 1.0) == -math.inf


def test_largest_difference_is_that_in_evaluation_mode_and_leaves_the_modes() -> None:
    some = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Dropout(0.9), nn.BatchNorm1d(4))
    other = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Identity(), nn.BatchNorm1d(4)).eval()
    other[0].load_state_dict(some[0].state_dict())
    inputs = torch.randn(8, 4)
    assert largest_difference(some, other, inputs) == 0
    assert some.training and not other.training and some[2].num_batches_tracked == 0
    with torch.no_grad():
        other[2].bias[1] = 0.25
    assert largest_difference(some, other, inputs) == pytest.approx(0.25)
