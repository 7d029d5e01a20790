"""Intervals of scores and their differences: against references, and how often they are right."""

from __future__ import annotations

import math
import random

import numpy
import pytest
from scipy.stats import binomtest, ttest_1samp, ttest_rel

from labkit.compare.intervals import (
    Z,
    bounded,
    matched_difference,
    mean_score,
    score_difference,
    share,
)
from labkit.measure.statistics import Estimate, mean_interval


def ends(estimate: Estimate) -> tuple[float, float]:
    return estimate.low, estimate.high


@pytest.mark.parametrize(("right", "n"), [(0, 7), (7, 7), (1, 3), (9123, 10_000)])
def test_the_interval_of_a_share_is_wilsons(right: int, n: int) -> None:
    # The formula of 1927, written out.
    p, z = right / n, Z
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    estimate = share(right, n)
    assert (estimate.value, estimate.n) == (right / n, n)
    assert ends(estimate) == pytest.approx((centre - half, centre + half), abs=1e-12)
    scores = numpy.array([1.0] * right + [0.0] * (n - right))
    assert mean_score([scores]) == estimate


def test_shares_hold_the_truth_as_often_as_they_say() -> None:
    generator, truth = numpy.random.default_rng(0), 0.93
    caught = [share(int(k), 100) for k in generator.binomial(100, truth, size=400)]
    held = sum(e.low <= truth <= e.high for e in caught)
    assert binomtest(held, 400, 0.95).pvalue > 1e-4


def test_the_interval_of_a_matched_difference_holds_the_truth() -> None:
    generator, caught, trials = random.Random(0), 0, 2000
    n, only_first, only_second = 200, 0.06, 0.02
    for _ in range(trials):
        draws = [generator.random() for _ in range(n)]
        first = sum(d < only_first for d in draws)
        second = sum(only_first <= d < only_first + only_second for d in draws)
        estimate = matched_difference(first, second, n)
        assert estimate.low <= estimate.value <= estimate.high
        caught += estimate.low <= only_first - only_second <= estimate.high
    assert 0.935 <= caught / trials <= 0.975


def test_the_interval_of_a_matched_difference_is_that_of_the_paired_differences() -> None:
    first, second, n = 700, 500, 10_000  # so many that the half examples hardly count
    differences = numpy.zeros(n)
    differences[:first], differences[first : first + second] = 1, -1
    half = Z * differences.std() / math.sqrt(n)
    estimate = matched_difference(first, second, n)
    assert estimate.value == pytest.approx(0.02)
    assert ends(estimate) == pytest.approx((0.02 - half, 0.02 + half), abs=2e-5)
    assert matched_difference(5, 9, 50).low == pytest.approx(-matched_difference(9, 5, 50).high)
    never_differ = matched_difference(0, 0, 10_000)
    assert never_differ.value == 0 and 1e-4 < never_differ.high == -never_differ.low < 4e-4


def test_right_and_wrong_are_matched_example_by_example() -> None:
    a = numpy.array([1.0] * 90 + [0.0] * 10)
    b = numpy.array([1.0] * 80 + [0.0] * 15 + [1.0] * 5)
    assert score_difference([a], [b]) == matched_difference(5, 10, 100)


def test_losses_are_paired_example_by_example_with_student_s_t() -> None:
    generator = numpy.random.default_rng(1)
    hard = generator.exponential(2.0, 300)  # what an example costs every model
    a, b = hard + generator.normal(0.0, 0.1, 300), hard - 0.05 + generator.normal(0.0, 0.1, 300)
    estimate = score_difference([a], [b])
    reference = ttest_rel(b, a).confidence_interval(0.95)
    assert ends(estimate) == pytest.approx((reference.low, reference.high))
    assert estimate.high < 0 and estimate.n == 300
    alone = mean_score([a])  # the difference is known far better than either mean
    assert alone.high - alone.low > 5 * (estimate.high - estimate.low)
    reference = ttest_1samp(a, 0.0).confidence_interval(0.95)
    assert ends(alone) == pytest.approx((reference.low, reference.high))


def test_paired_losses_hold_the_truth_as_often_as_they_say() -> None:
    generator, caught = numpy.random.default_rng(2), 0
    for _ in range(1000):
        hard = generator.exponential(2.0, 60)
        gains = generator.exponential(0.1, 60)  # skewed, as losses are
        estimate = score_difference([hard], [hard - gains])
        caught += estimate.low <= -0.1 <= estimate.high
    assert 910 <= caught <= 965


def test_several_seeds_are_paired_seed_by_seed() -> None:
    rates = {"a": (0.90, 0.80, 0.70), "b": (0.88, 0.77, 0.69)}  # mispaired they lie far apart
    a, b = (
        [numpy.array([1.0] * round(100 * p) + [0.0] * round(100 - 100 * p)) for p in rates[name]]
        for name in "ab"
    )
    estimate, expected = score_difference(a, b), mean_interval([-0.02, -0.03, -0.01])
    assert (estimate.value, *ends(estimate)) == pytest.approx((expected.value, *ends(expected)))
    assert estimate.n == mean_score(a).n == 3


def test_seeds_that_gain_the_same_whole_examples_have_an_interval_all_the_same() -> None:
    a = [numpy.array([1.0] * 90 + [0.0] * 10) for _ in range(3)]
    b = [numpy.array([1.0] * 91 + [0.0] * 9) for _ in range(3)]
    estimate = score_difference(a, b)
    assert estimate.low < 0.01 < estimate.high
    losses = [scores + 0.5 for scores in a]  # no shares: nothing is known of a grid
    assert score_difference(losses, losses) == Estimate(0.0, 0.0, 0.0, 3)


def test_an_interval_stays_within_what_the_value_can_be() -> None:
    assert bounded(Estimate(0.9, 0.7, 1.1, 3), 0, 1) == Estimate(0.9, 0.7, 1, 3)
    assert bounded(Estimate(0.1, -0.1, 0.3, 3), 0, 1) == Estimate(0.1, 0, 0.3, 3)
    assert bounded(Estimate(0.5, -2.0, 3.0, 2), 0, 1) == Estimate(0.5, -math.inf, math.inf, 2)
    assert bounded(Estimate(0.5, -2.0, 3.0, 2), 0, math.inf) == Estimate(0.5, 0, 3.0, 2)
    none = Estimate(0.5, -math.inf, math.inf, 1)
    assert bounded(none, 0, 1) == none
