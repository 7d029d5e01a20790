"""What there is to see of a race and of a tradeoff while they run.

The curves of a race come from its records, not from its rounds, so a race that was loaded from a
file, or stopped and continued, shows all it has. Seeds follow one another on the same axes, each as
a curve of its own: how far they lie apart is the noise that a difference between arms has to beat.
A single batch's loss jumps about, so the loss is smoothed.

A round is one unit of work: nothing is sent while the clock runs.
"""

import math
from collections.abc import Sequence
from typing import TypeAlias

from labkit.compare.quantity import LATENCY
from labkit.compare.race import Race
from labkit.compare.record import Record
from labkit.compare.tradeoff import Tradeoff
from labkit.measure.running_average import RunningAverage
from labkit.table import Table
from labkit.watch import Feed, Panel, Point, Status, feed

X_LABELS = ("steps", "training seconds")
LOSS, METRIC = 0, 1
POINTS = 400
"""Points of one curve, at most: more than pixels it is drawn on."""
Place: TypeAlias = tuple[tuple[float, float], ...]
"""Value, low and high of a point, each as (x, y)."""


class _Feed:
    """What both do alike.

    Attributes:
        thread_count: of torch's threads that the work is done with.
    """

    def __init__(self, work: Race | Tradeoff) -> None:
        self._work, self.thread_count = work, work.thread_count

    def advance(self) -> bool:
        """Do one unit of work."""
        if self._work.finished:
            return False
        self._work.advance()
        return True

    def status(self) -> Status:
        """Return how far the work is, by its own account."""
        left = self._work.seconds_left
        return Status(self._work.progress, None if left is None else left / 60, self.note())

    def note(self) -> str:
        """Return where the work stands, in a few words."""
        raise NotImplementedError


class RaceFeed(_Feed):
    """A race, one round a unit of work; the curves of every arm and the running speed."""

    def __init__(self, race: Race) -> None:
        super().__init__(race)
        self.race, arms, metric = race, tuple(race.arms), race.metric
        unit = f" ({metric.unit})" if metric.name == "loss" else ""  # of others nobody knows it
        self.panels = (
            Panel("Training loss", f"mean of a batch, smoothed{unit}", X_LABELS, arms),
            Panel(f"Test {metric.name}", f"{metric.name} ({metric.unit})", X_LABELS, arms),
        )
        self._read: dict[tuple[str, int], _Cursor] = {}

    def rows(self) -> Sequence[Point]:
        """Return the points that the records have gained."""
        points: list[Point] = []
        scale = self.race.metric.scale
        for arm, (name, records) in enumerate(self.race.records.items()):
            stride = max(1, -(-len(self.race.trainings.get(name, ())) // POINTS))
            for number, record in enumerate(records):
                cursor = self._read.setdefault((name, number), _Cursor(arm, number, stride, scale))
                points += cursor.new_points(record)
        return points

    def note(self) -> str:
        """Return which seed and round it is; "" before the first."""
        race = self.race
        seed = len(race.records[race.baseline])
        stands = f"Seed {seed} of {race.seeds}, round {race.number} of {race.rounds}."
        return stands if race.rounds else ""

    def table(self) -> Table | None:
        """Return the race's own table, as far as it has come."""
        return self.race.table(brief=True) if self.race.rounds else None


class _Cursor:
    """How far one record has been read, and the smoothed loss there."""

    def __init__(self, arm: int, number: int, stride: int, scale: float) -> None:
        self.arm, self.number, self.stride, self.scale = arm, number, stride, scale
        self.steps = self.evaluations = 0
        self.seconds, self.average = 0.0, RunningAverage()

    def new_points(self, record: Record) -> list[Point]:
        """Return the points that `record` has gained since the last call."""
        points = []
        # Not strict: an interrupted step may have left a time without its loss.
        for loss, seconds in zip(
            record.losses[self.steps :], record.training_seconds()[self.steps :], strict=False
        ):
            points += [] if self.steps else self._gap(LOSS)
            self.steps += 1
            self.seconds += seconds
            average = self.average.add(loss)
            if self.steps % self.stride == 0:
                points.append(Point(LOSS, self.arm, self.steps, average, self.seconds))
        for steps, seconds, score in record.evaluations[self.evaluations :]:
            points += [] if self.evaluations else self._gap(METRIC)
            self.evaluations += 1
            points.append(Point(METRIC, self.arm, steps, self.scale * score, seconds))
        return points

    def _gap(self, panel: int) -> list[Point]:
        """A point that is not a number: the curve of the next seed is not joined to the last."""
        return [Point(panel, self.arm, 0.0, math.nan)] if self.number else []


class TradeoffFeed(_Feed):
    """A tradeoff, one piece of its work a unit; every variant as a point, quality against latency.

    A point does not grow into a curve: it moves, and the bars of its intervals shrink. So all that
    is sent is a point's newest place, and only when it has changed. The figures of the table are
    those that compare; the intervals of the others are the bars.
    """

    def __init__(self, tradeoff: Tradeoff) -> None:
        super().__init__(tradeoff)
        self.tradeoff, names, metric = tradeoff, tuple(tradeoff.variants), tradeoff.metric
        title = f"{metric.name[:1].upper()}{metric.name[1:]} against latency"
        x_label = f"milliseconds a batch of {len(tradeoff.example)}"
        y_label = f"{metric.name} ({metric.unit})"
        upward = metric.higher_is_better
        self.panels = (Panel(title, y_label, (x_label,), names, "scatter", upward),)
        self._sent: dict[int, Place] = {}

    def rows(self) -> Sequence[Point]:
        """Return value, low and high of every point that has moved."""
        places = self._places()
        moved = {series: at for series, at in places.items() if self._sent.get(series) != at}
        self._sent |= moved
        return [Point(0, series, x, y) for series, place in moved.items() for x, y in place]

    def _places(self) -> dict[int, Place]:
        """Return where each variant is that has quality and latency."""
        samples = self.tradeoff.samples
        found: dict[int, Place] = {}
        for series, name in enumerate(self.tradeoff.variants):
            x, y = samples.value(name, LATENCY), samples.value(name, self.tradeoff.metric)
            if x is not None and y is not None:
                found[series] = ((x.value, y.value), (x.low, y.low), (x.high, y.high))
        return found

    def note(self) -> str:
        """Return how much is measured."""
        rounds, batches = self.tradeoff.timed, self.tradeoff.answered
        total = len(self.tradeoff.batches)
        note = f"Round {rounds} of {self.tradeoff.rounds}, {batches:,} of {total:,} test batches"
        return note + (f" of {self.tradeoff.seeds} seeds." if self.tradeoff.seeds > 1 else ".")

    def table(self) -> Table | None:
        """Return the figures so far, with intervals where variants are compared."""
        if not (self.tradeoff.timed or self.tradeoff.answered):
            return None
        return self.tradeoff.table(brief=True)


@feed.register
def _(thing: Race) -> Feed:
    return RaceFeed(thing)


@feed.register
def _(thing: Tradeoff) -> Feed:
    return TradeoffFeed(thing)
