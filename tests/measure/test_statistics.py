"""Intervals of times and of means against closed forms, and how often they hold the truth."""

import math
import random

import numpy
import pytest
import scipy.stats

from labkit.measure.statistics import (
    Estimate,
    mean_interval,
    mean_ratio,
    median_interval,
    paired_ratio,
)


def test_mean_interval_is_student_s() -> None:
    samples = [90.1, 91.3, 90.7, 92.0]
    ours = mean_interval(samples)
    reference = scipy.stats.ttest_1samp(samples, 0.0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((reference.low, reference.high))
    assert ours.value == pytest.approx(numpy.mean(samples))
    assert mean_interval([3.0]) == Estimate(3.0, -math.inf, math.inf, 1)


def test_values_on_a_grid_that_agree_by_chance_still_have_an_interval() -> None:
    truth, caught, trials = 0.30, 0, 3000  # between two values that the grid of 0.25 has
    generator = numpy.random.default_rng(0)
    for _ in range(trials):
        rounded = numpy.round(generator.normal(truth, 0.1, 3) / 0.25) * 0.25
        estimate = mean_interval(rounded, grain=0.25)
        assert estimate.low < estimate.value < estimate.high
        caught += estimate.low <= truth <= estimate.high
    assert caught / trials > 0.95
    wide = [1.0, 2.0, 4.0]  # far apart: the grid changes nothing
    assert mean_interval(wide, grain=0.25) == mean_interval(wide)


def test_mean_ratio_is_geometric_and_symmetric() -> None:
    there, back = mean_ratio([2.0, 8.0], [1.0, 1.0]), mean_ratio([1.0, 1.0], [2.0, 8.0])
    assert there.value == pytest.approx(4.0)
    assert there.low == pytest.approx(1 / back.high)


def test_median_interval_covers_the_true_median_about_95_times_in_100(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("labkit.measure.statistics.RESAMPLES", 400)
    generator = random.Random(0)
    covered = 0
    for _ in range(400):
        samples = [generator.lognormvariate(0.0, 0.5) for _ in range(60)]
        estimate = median_interval(samples)
        covered += estimate.low <= 1.0 <= estimate.high
    # Binomial(400, 0.95) lies between 362 and 394 all but once in ten thousand times; blocks of
    # neighbours cost a little coverage where there is nothing to catch.
    assert 355 <= covered <= 396


def test_the_bootstrap_in_pieces_is_that_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [random.Random(3).lognormvariate(0.0, 0.5) for _ in range(50)]
    whole = median_interval(samples)
    monkeypatch.setattr("labkit.measure.statistics.INDICES_AT_ONCE", 777)
    assert median_interval(samples) == whole


def test_noise_that_hits_both_arms_cancels_in_pairs() -> None:
    generator = random.Random(1)
    noise = [generator.choice([1.0, 1.0, 1.0, 4.0]) for _ in range(200)]
    estimate = paired_ratio([1.3 * x for x in noise], noise)
    assert estimate.value == pytest.approx(1.3)
    assert estimate.low == pytest.approx(1.3)
    assert estimate.high == pytest.approx(1.3)


def test_ratio_and_its_inverse_say_the_same() -> None:
    generator = random.Random(2)
    a, b = ([generator.uniform(1, 2) for _ in range(50)] for _ in "12")
    there, back = paired_ratio(a, b), paired_ratio(b, a)
    assert there.value == pytest.approx(1 / back.value)
    assert there.low == pytest.approx(1 / back.high, rel=1e-2)


def test_few_pairs_give_no_interval() -> None:
    assert paired_ratio([1.0] * 5, [2.0] * 5) == Estimate(0.5, 0.0, math.inf, 5)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([], [], "at least one"),
        ([1.0], [1.0, 2.0], "differ in length"),
        ([1.0], [0.0], "positive"),
        ([-1.0], [1.0], "positive"),
        ([math.nan], [1.0], "baseline must be finite"),
    ],
)
def test_bad_samples_are_refused(a: list[float], b: list[float], message: str) -> None:
    for ratio in (paired_ratio, mean_ratio):
        with pytest.raises(ValueError, match=message):
            ratio(a, b)


@pytest.mark.parametrize("samples", [[], [math.nan, 1.0], [math.inf]])
def test_what_is_no_row_of_numbers_has_no_interval(samples: list) -> None:
    for interval in (median_interval, mean_interval):
        with pytest.raises(ValueError, match="samples must be finite numbers in a row"):
            interval(samples)
