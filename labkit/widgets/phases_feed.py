"""Where a step's time goes, as bands that grow with the training.

Data, forward, backward and optimizer add up to the step, so they are stacked: the top edge is the
time of the whole step, and a band that grows fat is where to look. Single steps jitter, so a point
is the mean of a few; and the first ones, which build kernels and fill caches, are left out.
"""

from collections.abc import Sequence
from statistics import median

from labkit.compare.record import WARMUP_ROUNDS
from labkit.table import Table
from labkit.training import Training
from labkit.training.step import Phases
from labkit.watch import Feed, Panel, Point, Status, feed

POINTS = 150
"""Points of each band, at most."""


class PhasesFeed:
    """A training, one step a unit of work.

    On an accelerator the training must have been made with `timed=True`, or the phases are those
    of the processor that gives the orders.

    Attributes:
        phases: of each step so far, without the first ones.
    """

    def __init__(self, training: Training) -> None:
        self.training = training
        names = Phases._fields
        title = "Where a step's time goes"
        self.panels = (Panel(title, "time of a step (ms)", ("steps",), names, "stacked"),)
        self._first = training.index + WARMUP_ROUNDS
        self._block = max(1, len(training) // POINTS)
        self._iterator = iter(training)
        self.phases: list[Phases] = []
        self._sent = 0

    def advance(self) -> bool:
        """Do one step."""
        step = next(self._iterator, None)
        if step is None:
            return False
        if step.index >= self._first:
            self.phases.append(step.phases)
        return True

    def rows(self) -> Sequence[Point]:
        """Return a point of each band for every block of steps that is complete."""
        points = []
        while self._sent + self._block <= len(self.phases):
            block = self.phases[self._sent : self._sent + self._block]
            self._sent += self._block
            x = self.training.index - len(self.phases) + self._sent
            for band, seconds in enumerate(zip(*block, strict=True)):
                points.append(Point(0, band, x, 1e3 * sum(seconds) / self._block))
        return points

    def status(self) -> Status:
        """Return how many steps are done."""
        total = len(self.training)
        left = (total - self.training.index) * self._seconds_a_step()
        return Status(
            progress=self.training.index / total,
            minutes_left=left / 60 if self.phases else None,
            note=f"Step {self.training.index} of {total}.",
        )

    def table(self) -> Table | None:
        """Return median and share of each part."""
        if not self.phases:
            return None
        whole = self._seconds_a_step()
        rows = []
        for name, seconds in zip(Phases._fields, zip(*self.phases, strict=True), strict=True):
            share = sum(seconds) / len(seconds) / whole
            rows.append((name, f"{1e3 * median(seconds):.2f}", f"{100 * share:.0f}"))
        rows.append(("whole step", f"{1e3 * median(map(sum, self.phases)):.2f}", "100"))
        return Table(("part", "median ms", "% of the time"), tuple(rows))

    def _seconds_a_step(self) -> float:
        return sum(map(sum, self.phases)) / max(1, len(self.phases))


@feed.register
def _(thing: Training) -> Feed:
    return PhasesFeed(thing)
