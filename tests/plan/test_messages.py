"""The cost of a message: a fit to planted lines, and sums by hand."""

from __future__ import annotations

import random

import pytest

from labkit.plan.messages import MessageCost, fit_cost

COST = MessageCost(latency=2e-4, per_byte=1e-9)
SIZES = [2**k for k in range(10, 24, 2)]


def test_a_planted_line_is_found():
    measured = {size: [COST.seconds(size)] * 3 for size in SIZES}
    found = fit_cost(measured)
    assert found.latency == pytest.approx(COST.latency, rel=1e-9)
    assert found.per_byte == pytest.approx(COST.per_byte, rel=1e-9)


def test_noise_and_an_outlier_hardly_matter():
    noise = random.Random(0)
    measured = {
        size: [COST.seconds(size) * noise.uniform(0.95, 1.05) for _ in range(9)] + [1.0]
        for size in SIZES
    }
    found = fit_cost(measured)
    assert found.latency == pytest.approx(COST.latency, rel=0.1)
    assert found.per_byte == pytest.approx(COST.per_byte, rel=0.1)


@pytest.mark.parametrize("times", [[3e-3, 2e-3, 1e-3], [1e-5, 1e-3, 1e-1]])
def test_costs_are_never_below_zero(times):
    found = fit_cost(
        {size: [seconds] for size, seconds in zip((10, 100, 1000), times, strict=True)}
    )
    assert found.latency > 0 and found.per_byte > 0


def test_buckets():
    assert COST.seconds(1_000_000) == pytest.approx(2e-4 + 1e-3)
    assert COST.seconds(1_000_000, 100_000) == pytest.approx(10 * 2e-4 + 1e-3)
    assert COST.seconds(1_000_000, 300_000) == pytest.approx(4 * 2e-4 + 1e-3)
    assert COST.seconds(10, 1_000_000) == pytest.approx(2e-4 + 1e-8)


def test_break_even():
    assert COST.break_even == pytest.approx(200_000)
    assert COST.seconds(COST.break_even) == pytest.approx(2 * COST.latency)


@pytest.mark.parametrize(("total", "bucket"), [(0, 1), (1, 0), (-1, 1), (float("nan"), 1)])
def test_sizes_must_be_positive(total, bucket):
    with pytest.raises(ValueError, match="total and bucket must be above 0 bytes"):
        COST.seconds(total, bucket)


def test_bad_measurements():
    with pytest.raises(ValueError, match="two sizes or more"):
        fit_cost({1: [1.0]})
    with pytest.raises(ValueError, match="times above zero"):
        fit_cost({1: [1.0], 2: [0.0]})
