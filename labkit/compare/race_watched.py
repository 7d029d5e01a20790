"""What there is to see of a race: loss and metric of every arm, and the running speed.

The curves come from the race's records, not from its rounds, so a race that was loaded from a file,
or stopped and continued, shows all it has. Seeds follow one another on the same axes, each as a
curve of its own: how far they lie apart is the noise that a difference between arms has to beat.
A single batch's loss jumps about, so the loss is smoothed.
"""

import math
from collections.abc import Sequence

from labkit.compare.race import Race
from labkit.compare.record import Record
from labkit.measure.running_average import RunningAverage
from labkit.table import Table
from labkit.watch import Feed, Panel, Point, Status, feed

X_LABELS = ("steps", "training seconds")
LOSS, METRIC = 0, 1
POINTS = 400
"""Points of one curve, at most: more than pixels it is drawn on."""


class RaceFeed:
    """A race, one round a unit of work.

    Attributes:
        thread_count: of torch's threads that the race is run with.
    """

    def __init__(self, race: Race) -> None:
        arms, metric = tuple(race.arms), race.metric
        self.race, self.thread_count = race, race.thread_count
        unit = f" ({metric.unit})" if metric.name == "loss" else ""  # of others nobody knows it
        self.panels = (
            Panel("Training loss", f"mean of a batch, smoothed{unit}", X_LABELS, arms),
            Panel(f"Test {metric.name}", f"{metric.name} ({metric.unit})", X_LABELS, arms),
        )
        self._read: dict[tuple[str, int], _Cursor] = {}

    def advance(self) -> bool:
        """Do one round."""
        if self.race.finished:
            return False
        self.race.advance()
        return True

    def rows(self) -> Sequence[Point]:
        """Return the points that the records have gained."""
        points: list[Point] = []
        scale = self.race.metric.scale
        for arm, (name, records) in enumerate(self.race.records.items()):
            stride = max(1, len(self.race.trainings.get(name, ())) // POINTS)
            for number, record in enumerate(records):
                cursor = self._read.setdefault((name, number), _Cursor(arm, number, stride, scale))
                points += cursor.new_points(record)
        return points

    def status(self) -> Status:
        """Return the race's own progress."""
        race, left, note = self.race, self.race.seconds_left, ""
        if race.rounds:
            seed = len(race.records[race.baseline])
            note = f"Seed {seed} of {race.seeds}, round {race.number} of {race.rounds}."
        return Status(race.progress, None if left is None else left / 60, note)

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
        while self.steps < len(record.losses):
            loss, seconds = record.losses[self.steps], record.seconds[self.steps]
            self.steps += 1
            self.seconds += seconds
            average = self.average.add(loss)
            if self.steps == 1:
                points += self._gap(LOSS)
            if self.steps % self.stride == 0:
                points.append(Point(LOSS, self.arm, self.steps, average, self.seconds))
        while self.evaluations < len(record.evaluations):
            steps, seconds, score = record.evaluations[self.evaluations]
            self.evaluations += 1
            if self.evaluations == 1:
                points += self._gap(METRIC)
            points.append(Point(METRIC, self.arm, steps, self.scale * score, seconds))
        return points

    def _gap(self, panel: int) -> list[Point]:
        """A point that is not a number: the curve of the next seed is not joined to the last."""
        return [Point(panel, self.arm, 0.0, math.nan)] if self.number else []


@feed.register
def _(thing: Race) -> Feed:
    return RaceFeed(thing)
