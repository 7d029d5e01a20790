"""How a figure is written in a table, and what it says of where it comes from."""

import math
from collections.abc import Mapping, Sequence

from labkit.compare.intervals import Scores
from labkit.compare.quantity import Quantity
from labkit.compare.verdict import Verdict, margin_decimals
from labkit.measure.statistics import Estimate
from labkit.units import decimals

NOTHING = "–"


def own_cell(
    quantity: Quantity, estimate: Estimate | None, known: Sequence[float], brief: bool
) -> str:
    """Return one arm's value.

    Args:
        quantity: whose column it is.
        estimate: the value, or None.
        known: all values behind it, also those of trainings that did not get there (inf).
        brief: without the interval.
    """
    if estimate is None:
        return "not reached" if known else NOTHING
    spec = value_format(quantity, estimate.value)
    there = sum(map(math.isfinite, known))
    some = f" ({there} of {len(known)} seeds)" if there < len(known) else ""
    bare = brief or quantity.exact or quantity.once_a_seed
    return (f"{estimate.value:{spec}}" if bare else f"{estimate:{spec}}") + some


def versus_cell(quantity: Quantity, estimate: Estimate | None, is_baseline: bool) -> str:
    """Return how an arm compares with the baseline, in the numbers of its verdict."""
    if is_baseline:
        return f"{quantity.same:g} (baseline)"
    if estimate is None:
        return NOTHING
    verdict = Verdict("", "", quantity, estimate)
    value = verdict.number(estimate.value) + ("x" if quantity.kind == "ratio" else "")
    if quantity.exact:
        return value
    if verdict.too_few:
        return f"{value} (n={estimate.n})"
    return f"{value} ({verdict.number(estimate.low)} to {verdict.number(estimate.high)})"


def value_format(quantity: Quantity, value: float) -> str:
    """Return the format of a value: three digits that count, or the decimals of the margin."""
    if quantity.kind == "difference":
        return f".{margin_decimals(quantity.margin)}f"
    return f".{decimals(value)}f"


def basis(
    quantity: Quantity, counts: Sequence[int], scores: Mapping[str, Mapping[int, Scores]]
) -> str:
    """Return what the figures of a quantity are based on; "" if there are none.

    Args:
        quantity: whose column it is.
        counts: how many values each arm has.
        scores: {arm: {seed: scores}}, if it is measured by those.
    """
    name = quantity.name[:1].upper() + quantity.name[1:]
    if scores:
        seeds = [len(of_arm) for of_arm in scores.values()]
        if max(seeds) > 1:
            many = spread(seeds, "seed")
            return f"{name}: mean of {many}, compared seed by seed (Student's t)."
        some = next(iter(next(iter(scores.values())).values()))
        return f"{name}: {some.size:,} examples, the same for all, compared one by one."
    counts = [count for count in counts if count]
    if not counts or quantity.exact:
        return ""
    if quantity.once_a_seed:
        return f"{name}: mean of {spread(counts, 'seed')}."
    return f"{name}: median of {spread(counts, 'round')}, compared round by round."


def spread(counts: Sequence[int], noun: str) -> str:
    """Return "3 seeds", or "2 to 3 seeds" where the arms differ."""
    low, high = min(counts), max(counts)
    number = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{number} {noun}{'' if high == 1 else 's'}"
