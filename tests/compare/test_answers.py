"""Intervals of accuracies and of points lost, against references."""

from __future__ import annotations

import math
import random

import pytest
import torch
from scipy.stats import binomtest

from labkit.compare.answers import Z, matched_difference, wilson


@pytest.mark.parametrize(("right", "n"), [(0, 7), (7, 7), (1, 3), (9123, 10_000)])
def test_the_interval_of_one_accuracy_is_wilsons(right: int, n: int) -> None:
    expected = binomtest(right, n).proportion_ci(0.95, method="wilson")
    estimate = wilson(right, n)
    assert (estimate.value, estimate.n) == (pytest.approx(100 * right / n), n)
    assert (estimate.low, estimate.high) == pytest.approx((100 * expected[0], 100 * expected[1]))


def test_the_interval_of_points_lost_holds_the_truth() -> None:
    generator, caught, trials = random.Random(0), 0, 2000
    n, only_first, only_second = 200, 0.06, 0.02
    for _ in range(trials):
        draws = [generator.random() for _ in range(n)]
        first = sum(d < only_first for d in draws)
        second = sum(only_first <= d < only_first + only_second for d in draws)
        estimate = matched_difference(first, second, n)
        assert estimate.low <= estimate.value <= estimate.high
        caught += estimate.low <= 100 * (only_first - only_second) <= estimate.high
    assert 0.935 <= caught / trials <= 0.975


def test_the_interval_of_points_lost_is_that_of_the_paired_differences() -> None:
    first, second, n = 700, 500, 10_000  # so many that the half images hardly count
    differences = torch.zeros(n, dtype=torch.double)
    differences[:first], differences[first : first + second] = 1, -1
    half = Z * 100 * float(differences.std()) / math.sqrt(n)
    estimate = matched_difference(first, second, n)
    assert estimate.value == pytest.approx(2)
    assert (estimate.low, estimate.high) == pytest.approx((2 - half, 2 + half), abs=0.002)
    assert matched_difference(5, 9, 50).low == pytest.approx(-matched_difference(9, 5, 50).high)
    never_differ = matched_difference(0, 0, 10_000)
    assert never_differ.value == 0 and 0.01 < never_differ.high == -never_differ.low < 0.04
