"""Values of several arms that belong together, and how those of two compare.

Within a round, the arms take turns, and it matters a little who comes first: caches and the
allocator are as the one before left them. `order_of_round` gives each arm the first place equally
often, but only over whole cycles of the order. A race that stops in the middle of one would favour
somebody, so the few rounds that go beyond a balance are left out.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy

from labkit.compare.intervals import Scores
from labkit.compare.quantity import Quantity
from labkit.measure.statistics import (
    FEWEST_PAIRS,
    Estimate,
    mean_interval,
    mean_ratio,
    median_interval,
    paired_ratio,
)
from labkit.measure.timing import order_of_round

Key: TypeAlias = tuple[int, int]
"""Number of the seed, and of the round within it."""
Values: TypeAlias = dict[Key, float]
Pair: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
ScorePieces: TypeAlias = dict[str, dict[int, list[Scores]]]
"""{arm: {seed: scores of the batches that are answered}}."""


def common(pieces: ScorePieces) -> dict[str, dict[int, Scores]]:
    """Return {arm: {seed: scores}} on the examples that all have answered.

    Models answer in turn: one is always a batch ahead, and easy batches differ from hard ones.
    """
    whole = {a: {seed: numpy.concatenate(p) for seed, p in s.items()} for a, s in pieces.items()}
    count = min((s.size for seeds in whole.values() for s in seeds.values()), default=0)
    if not count:
        return {}
    return {arm: {seed: s[:count] for seed, s in seeds.items()} for arm, seeds in whole.items()}


def paired(
    theirs: Values, mine: Values, arms: Sequence[str], over: str, arm: str, *, in_turn: bool
) -> Pair:
    """Return the values of `over` and of `arm` that belong together.

    None do where a training has not got there (inf): to compare those that have would favor an arm
    that fails where it is slow.

    Args:
        theirs, mine: values of `over` and of `arm`.
        arms: all arms, in the order of round 0.
        over, arm: the two arms.
        in_turn: whether they were taken in the order of `order_of_round`, and need its balance.
    """
    if math.inf in (*theirs.values(), *mine.values()):
        return (), ()
    keys = sorted(theirs.keys() & mine.keys())
    if in_turn and over != arm:
        keys = balanced(keys, arms, over, arm)
    return tuple(theirs[key] for key in keys), tuple(mine[key] for key in keys)


def balanced(keys: Sequence[Key], arms: Sequence[str], one: str, other: str) -> list[Key]:
    """Return the keys of the longest stretch, in each seed, in which both have led equally often.

    All of them are returned where that would leave too few for an interval, or less than half: an
    arm that rests in most rounds may always come first in those where it does not.
    """
    cycle = 2 * len(arms)  # after so many rounds the order repeats
    orders = [order_of_round(arms, number) for number in range(cycle)]
    leads = [1 if order.index(one) < order.index(other) else -1 for order in orders]
    kept: list[Key] = []
    for seed in dict.fromkeys(seed for seed, _ in keys):
        of_seed = [key for key in keys if key[0] == seed]
        # How often `one` has led more than `other`. Between two places where that is the same,
        # both have led equally often.
        ahead, first_place, best = 0, {0: 0}, (0, 0)
        for place, (_, number) in enumerate(of_seed, start=1):
            ahead += leads[number % cycle]
            start = first_place.setdefault(ahead, place)
            best = max(best, (start, place), key=lambda stretch: stretch[1] - stretch[0])
        kept += of_seed[slice(*best)]
    enough = len(kept) >= FEWEST_PAIRS and 2 * len(kept) >= len(keys)
    return kept if enough else list(keys)


def compare(quantity: Quantity, theirs: Sequence[float], mine: Sequence[float]) -> Estimate | None:
    """Return how much better, or how much more, `mine` is; None if there are no pairs.

    A difference is in the unit of the values; `Quantity.scale` is not applied.
    """
    if not theirs:
        return None
    ratio = quantity.kind == "ratio"
    if quantity.exact:
        value = ratios(quantity, theirs, mine)[0] if ratio else mine[0] - theirs[0]
        return Estimate(value, value, value, 1)
    if not ratio:
        gains = tuple(b - a for a, b in zip(theirs, mine, strict=True))
        return mean_interval(gains) if quantity.once_a_seed else median(gains)
    # Of a rate, such as tokens a second, more is better: it is the time turned round.
    slow, fast = (mine, theirs) if quantity.higher_is_better else (theirs, mine)
    if quantity.once_a_seed:
        return mean_ratio(slow, fast)
    return _paired_ratio(tuple(slow), tuple(fast))


def ratios(quantity: Quantity, theirs: Sequence[float], mine: Sequence[float]) -> list[float]:
    """Return how many times better each value of `mine` is."""
    if quantity.higher_is_better:
        theirs, mine = mine, theirs
    return [a / b for a, b in zip(theirs, mine, strict=True)]


# A picture asks six times a second; the values change only when a round is done.
@lru_cache(maxsize=256)
def median(values: tuple[float, ...]) -> Estimate:
    """Return the median of values in the order in which they were taken."""
    return median_interval(values)


@lru_cache(maxsize=256)
def _paired_ratio(slow: tuple[float, ...], fast: tuple[float, ...]) -> Estimate:
    return paired_ratio(slow, fast)
