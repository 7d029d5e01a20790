"""Intervals of mean scores and of their differences, example by example or seed by seed.

Where the uncertainty comes from depends on what there is. With several seeds, each a training of
its own, it is how far the seeds lie apart: Student's t. With one model it is the test set: other
examples would have given other scores. A share of right answers then has Wilson's interval. What
one of two models scores more has the interval of the paired differences: both answered the same
examples and mostly fail on the same ones, so their difference is known far better than either. For
right and wrong it is that of Agresti and Min, for numbers such as losses Student's t again.

Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927;
Agresti and Min, "Simple Improved Confidence Intervals for Comparing Matched Proportions", 2005.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy
from numpy.typing import NDArray

from labkit.measure.statistics import LEVEL, Estimate, mean_interval

Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
Scores = NDArray[numpy.float64]


def mean_score(seeds: Sequence[Scores]) -> Estimate:
    """Return the mean score of a model that was trained with these seeds.

    Args:
        seeds: one score an example, for each seed.
    """
    if len(seeds) > 1:
        return mean_interval([float(scores.mean()) for scores in seeds], grain=_grain(seeds))
    (scores,) = seeds
    if _all_or_nothing(scores):
        return share(int(scores.sum()), scores.size)
    return mean_interval(scores)


def score_difference(baseline: Sequence[Scores], candidate: Sequence[Scores]) -> Estimate:
    """Return by how much the candidate scores more than the baseline, on the same examples.

    Args:
        baseline, candidate: one score an example, for each seed; seed i of both is a pair.
    """
    if len(baseline) > 1:
        gains = [float((b - a).mean()) for a, b in zip(baseline, candidate, strict=True)]
        return mean_interval(gains, grain=_grain([*baseline, *candidate]))
    (a,), (b,) = baseline, candidate
    if _all_or_nothing(a) and _all_or_nothing(b):
        return matched_difference(int((b > a).sum()), int((a > b).sum()), a.size)
    return mean_interval(b - a)


def share(right: int, n: int) -> Estimate:
    """Return `right` of `n`, 0 to 1, with Wilson's interval."""
    from scipy.stats import binomtest  # half a second to import

    interval = binomtest(right, n).proportion_ci(LEVEL, method="wilson")
    return Estimate(right / n, float(interval.low), float(interval.high), n)


def matched_difference(only_first: int, only_second: int, n: int) -> Estimate:
    """Return how much more often the first of two models is right, as a share (-1 to 1).

    Args:
        only_first, only_second: examples on which only that model is right.
        n: all examples.
    """
    # Half an example is added to each of the four cases: two models that differ on none of the
    # examples seen may well differ on others.
    b, c, total = only_first + 0.5, only_second + 0.5, n + 2
    centre = (b - c) / total
    half = Z * math.sqrt(b + c - (b - c) ** 2 / total) / total
    low, high = max(-1.0, centre - half), min(1.0, centre + half)
    return Estimate((only_first - only_second) / n, low, high, n)


def scaled(estimate: Estimate, scale: float) -> Estimate:
    """Return the estimate in another unit; `scale` is positive."""
    return Estimate(scale * estimate.value, scale * estimate.low, scale * estimate.high, estimate.n)


def bounded(estimate: Estimate, low: float, high: float) -> Estimate:
    """Return the estimate with its interval inside of what the value can be.

    An interval that leaves on both sides says nothing: two seeds give such intervals. Cut off on
    both, it would look like a finding ("0 to 100 %"), so there is none then.
    """
    if estimate.low < low and estimate.high > high:
        return Estimate(estimate.value, -math.inf, math.inf, estimate.n)
    return Estimate(estimate.value, max(low, estimate.low), min(high, estimate.high), estimate.n)


def _all_or_nothing(scores: Scores) -> bool:
    return bool(((scores == 0) | (scores == 1)).all())


def _grain(seeds: Sequence[Scores]) -> float:
    """Return the step between the values that a mean can take: 1/n of right and wrong, else 0.

    With 100 test images, two seeds often gain the same whole number of points. They lie apart all
    the same, by less than the test set can show.
    """
    return 1 / seeds[0].size if all(map(_all_or_nothing, seeds)) else 0.0
