"""From what a tradeoff has measured to points, a front, verdicts and a table.

A smaller model is worth having when two things hold: its whole interval of speed lies above the
baseline, and the whole interval of what it loses lies below what may be lost. "No difference found"
is not enough for the second: with few images nothing is ever found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from labkit.compare import scoreboard
from labkit.compare.answers import accuracy, answered, lost
from labkit.compare.verdict import Verdict
from labkit.measure.statistics import Estimate, median_interval, paired_ratio
from labkit.table import Table

if TYPE_CHECKING:
    from labkit.compare.tradeoff import Tradeoff

HEADERS = ("variant", "accuracy %", "points lost", "ms a batch", "speed", "MB")


@dataclass(frozen=True)
class TradePoint:
    """One variant, as far as it is measured.

    Attributes:
        accuracy: percent, or None before the first answers.
        lost: percentage points less than the baseline (below 0: gained); 0 for the baseline.
        latency: milliseconds a batch, or None before the first round.
        speed: how many times faster than the baseline; 1 for the baseline.
        bytes: of its file if that was given, else of parameters and buffers.
        seeds: models behind the accuracy.
    """

    accuracy: Estimate | None
    lost: Estimate | None
    latency: Estimate | None
    speed: Estimate | None
    bytes: int
    seeds: int


@dataclass(frozen=True)
class Reading:
    """Whether a variant is cheaper and not worse. `str` is the sentence.

    Attributes:
        speed: the verdict on the latency.
        lost: points of accuracy lost.
        allowed: points that may be lost.
    """

    speed: Verdict
    lost: Estimate
    allowed: float

    @property
    def call(self) -> str:
        """Return "cheaper and not worse", "cheaper but worse", "can't tell" or "not cheaper"."""
        if self.speed.call == "worse":
            return "not cheaper"
        if self.speed.call == "can't tell":
            return "can't tell"
        if self.lost.high <= self.allowed:
            return "cheaper and not worse"
        return "cheaper but worse" if self.lost.low > self.allowed else "can't tell"

    def __str__(self) -> str:
        names = f"{self.speed.candidate} over {self.speed.baseline}"
        speed = f"{self.speed.estimate:.2fx} in speed"
        lost = f"{self.lost:.2f} points lost, {self.allowed:g} allowed"
        return f"{names}: {self.call}: {speed}, {lost}"

    def __repr__(self) -> str:
        return str(self)


# -- estimates -----------------------------------------------------------------------------------


def points(tradeoff: Tradeoff) -> dict[str, TradePoint]:
    """Return what is known of each variant, on the batches that all have answered."""
    right = answered(tradeoff.right)
    baseline = tradeoff.milliseconds(tradeoff.baseline)
    return {
        name: TradePoint(
            accuracy=accuracy(right[name]),
            lost=lost(right[tradeoff.baseline], right[name]),
            latency=_median(tradeoff.milliseconds(name)),
            speed=_ratio(baseline, tradeoff.milliseconds(name)),
            bytes=size(tradeoff, name),
            seeds=tradeoff.seeds,
        )
        for name in tradeoff.variants
    }


def size(tradeoff: Tradeoff, name: str) -> int:
    """Return the bytes of a variant: as given, else of its first model's parameters and buffers."""
    if name in tradeoff.sizes:
        return tradeoff.sizes[name]
    model = tradeoff.variants[name][0]
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


# A picture asks six times a second; the answers change only when a round is done.
@lru_cache(maxsize=256)
def _median(milliseconds: tuple[float, ...]) -> Estimate | None:
    return median_interval(milliseconds) if milliseconds else None


@lru_cache(maxsize=256)
def _ratio(baseline: tuple[float, ...], candidate: tuple[float, ...]) -> Estimate | None:
    return paired_ratio(baseline, candidate) if baseline else None


# -- readings ------------------------------------------------------------------------------------


def front(known: Mapping[str, TradePoint]) -> tuple[str, ...]:
    """Return the names that no other beats in latency and accuracy, the fastest first."""
    return unbeaten(
        {
            name: (p.latency.value, p.accuracy.value)
            for name, p in known.items()
            if p.latency is not None and p.accuracy is not None
        }
    )


def unbeaten(places: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """Return the names, the fastest first, of {name: (time, accuracy)} that no other beats.

    One beats another if it is as good in both and better in one; two alike do not beat each other.
    """
    names: list[str] = []
    best = (math.inf, -math.inf)  # of the names so far: time and accuracy of the most accurate
    for name, place in sorted(places.items(), key=lambda item: (item[1][0], -item[1][1])):
        if place[1] > best[1] or place == best:
            names.append(name)
            best = place
    return tuple(names)


def verdict(tradeoff: Tradeoff, candidate: str, over: str, on: str) -> Verdict:
    """Return the verdict of `candidate` over `over`; see `Tradeoff.verdict`."""
    for name in (candidate, over):
        if name not in tradeoff.variants:
            known = ", ".join(tradeoff.variants)
            raise ValueError(f"no variant {name!r} in this tradeoff; it has {known}")
    if on == "accuracy":
        right = answered(tradeoff.right)
        difference = lost(right[candidate], right[over])  # the other way round: points gained
    elif on == "latency":
        difference = _ratio(tradeoff.milliseconds(over), tradeoff.milliseconds(candidate))
    else:
        raise ValueError(f'on must be "accuracy" or "latency", got {on!r}')
    if difference is None:
        raise ValueError(f"nothing measured yet for {on!r} of {candidate!r} and {over!r}")
    return Verdict(candidate, over, on, difference)


def reading(tradeoff: Tradeoff, candidate: str, over: str, allowed: float) -> Reading:
    """Return the reading of `candidate` over `over`; see `Tradeoff.reading`."""
    if not allowed >= 0:
        raise ValueError(f"allowed must be points of accuracy, 0 or more, got {allowed!r}")
    gained = verdict(tradeoff, candidate, over, "accuracy").estimate
    points_lost = Estimate(0.0 - gained.value, 0.0 - gained.high, 0.0 - gained.low, gained.n)
    return Reading(verdict(tradeoff, candidate, over, "latency"), points_lost, allowed)


# -- table and scoreboard ------------------------------------------------------------------------


def table(tradeoff: Tradeoff) -> Table:
    """Return the table of a tradeoff; see `Tradeoff.table`."""
    return Table(HEADERS, rows(tradeoff), note=note(tradeoff))


def rows(tradeoff: Tradeoff, brief: bool = False) -> tuple[tuple[str, ...], ...]:
    """Return a row a variant; `brief` gives intervals only where variants are compared."""
    return tuple(
        (
            name,
            _cell(p.accuracy, ".2f", brief),
            "0 (baseline)" if name == tradeoff.baseline else _cell(p.lost, ".2f"),
            _cell(p.latency, three_digits(p.latency.value) if p.latency else "", brief),
            "1 (baseline)" if name == tradeoff.baseline else _cell(p.speed, ".2fx"),
            f"{p.bytes / 1e6:.2f}" if p.bytes else "–",
        )
        for name, p in tradeoff.points.items()
    )


def _cell(estimate: Estimate | None, spec: str, brief: bool = False) -> str:
    if estimate is None:
        return "–"
    return f"{estimate.value:{spec}}" if brief else f"{estimate:{spec}}"


def three_digits(value: float) -> str:
    """Return the format of a positive number with three digits that count, without an exponent."""
    return f".{max(0, 2 - math.floor(math.log10(value)))}f"


def seen(tradeoff: Tradeoff) -> tuple[int, int]:
    """Return the rounds that are timed, and the test answers that every model has given."""
    answers = answered(tradeoff.right)[tradeoff.baseline].shape[1]
    return len(tradeoff.milliseconds(tradeoff.baseline)), answers


def note(tradeoff: Tradeoff) -> str:
    """Return how many observations there are, and what the intervals are."""
    rounds, answers = seen(tradeoff)
    if tradeoff.seeds > 1:
        basis = f"mean of {tradeoff.seeds} seeds, paired by seed (Student's t)"
    else:
        basis = (
            "one model each (Wilson's binomial interval), paired answer by answer (Agresti and Min)"
        )
    names = "; ".join(tradeoff.front)
    return (
        f"In brackets: 95 % intervals. Accuracy: {answers:,} test answers, {basis}. "
        f"Latency: median of {rounds} rounds, {len(tradeoff.example)} in a batch."
        + (f" On the front, by point estimates: {names}." if names else "")
    )


def row(tradeoff: Tradeoff, what: str, *, notebook: str, profile: str) -> dict[str, Any]:
    """Return the scoreboard row of a tradeoff; see `Tradeoff.row`."""
    figures: dict[str, tuple[Estimate, str]] = {}
    for name, p in tradeoff.points.items():
        megabytes = p.bytes / 1e6
        candidates = {
            f"{name}: accuracy": (p.accuracy, "%"),
            f"{name}: latency": (p.latency, "ms"),
            f"{name}: size": (Estimate(megabytes, megabytes, megabytes, 1), "MB"),
        }
        if name != tradeoff.baseline:
            candidates[f"{name}: points lost to {tradeoff.baseline}"] = (p.lost, "points")
            candidates[f"{name}: speed over {tradeoff.baseline}"] = (p.speed, "x")
        figures |= {key: (value, unit) for key, (value, unit) in candidates.items() if value}
    return scoreboard.row(what, figures, notebook=notebook, profile=profile)
