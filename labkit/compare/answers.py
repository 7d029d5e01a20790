"""How accurate a model is, and how much less than another, from which answers were right.

Where the uncertainty comes from depends on what there is. With several seeds, each a training of
its own, it is how far the seeds lie apart: Student's t. With one model it is the test set: other
images would have given other answers. There an accuracy has Wilson's interval, and the points lost
have that of Agresti and Min, from the images on which exactly one of the two is right. Models that
are made from each other mostly fail on the same images, so there are few of these, and the points
lost are known far better than either accuracy.

Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927;
Agresti and Min, "Simple Improved Confidence Intervals for Comparing Matched Proportions", 2005.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import torch
from torch import Tensor

from labkit.measure.statistics import LEVEL, Estimate, mean_interval

Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


def answered(right: Mapping[str, Sequence[Sequence[Tensor]]]) -> dict[str, Tensor]:
    """Return what was right in the batches that all models of all variants have answered.

    Args:
        right: {variant: one sequence a seed: one tensor a batch, bool}.

    Returns:
        {variant: bool (seeds, answers)}.
    """
    count = min(len(batches) for seeds in right.values() for batches in seeds)
    if not count:
        return {name: torch.empty(len(seeds), 0, dtype=torch.bool) for name, seeds in right.items()}
    return {
        name: torch.stack([torch.cat(list(batches[:count])) for batches in seeds])
        for name, seeds in right.items()
    }


def accuracy(right: Tensor) -> Estimate | None:
    """Return the accuracy in percent, from bool (seeds, answers); None if there is no answer."""
    if not right.numel():
        return None
    if len(right) > 1:
        return mean_interval((100 * right.double().mean(dim=1)).tolist())
    return wilson(int(right.sum()), right.numel())


def lost(baseline: Tensor, candidate: Tensor) -> Estimate | None:
    """Return the points that `candidate` loses; both bool (seeds, answers) to the same images."""
    if not baseline.numel():
        return None
    if baseline is candidate:
        return Estimate(0.0, 0.0, 0.0, len(baseline) if len(baseline) > 1 else baseline.numel())
    if len(baseline) > 1:
        return mean_interval((100 * (baseline.double() - candidate.double()).mean(dim=1)).tolist())
    only_first, only_second = int((baseline & ~candidate).sum()), int((candidate & ~baseline).sum())
    return matched_difference(only_first, only_second, baseline.numel())


def wilson(right: int, n: int) -> Estimate:
    """Return `right` of `n` in percent, with Wilson's interval."""
    share = right / n
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Estimate(100 * share, 100 * min(share, low), 100 * max(share, high), n)


def matched_difference(only_first: int, only_second: int, n: int) -> Estimate:
    """Return by how many points the first of two models is right more often.

    Args:
        only_first, only_second: images on which only that model is right.
        n: all images.
    """
    # Half an image is added to each of the four cases: two models that differ on none of the
    # images seen may well differ on others.
    b, c, total = only_first + 0.5, only_second + 0.5, n + 2
    centre = (b - c) / total
    half = Z * math.sqrt(b + c - (b - c) ** 2 / total) / total
    low, high = max(-1.0, centre - half), min(1.0, centre + half)
    return Estimate(100 * (only_first - only_second) / n, 100 * low, 100 * high, n)
