"""What there is to see of a tradeoff: every variant as a point, quality against latency.

A point does not grow into a curve: it moves, and the bars of its intervals shrink. So all that is
sent is a point's newest place, and only when it has changed. The figures of the table are those
that compare; the intervals of the others are the bars.

A round of latencies is one unit of work: nothing is sent while the clock runs.
"""

from collections.abc import Sequence
from typing import TypeAlias

from labkit.compare.quantity import LATENCY
from labkit.compare.tradeoff import Tradeoff
from labkit.table import Table
from labkit.watch import Feed, Panel, Point, Status, feed

Place: TypeAlias = tuple[tuple[float, float], ...]
"""Value, low and high of a point, each as (x, y)."""


class TradeoffFeed:
    """A tradeoff, one piece of its work a unit.

    Attributes:
        thread_count: of torch's threads that the tradeoff is run with.
    """

    def __init__(self, tradeoff: Tradeoff) -> None:
        self.tradeoff, self.thread_count = tradeoff, tradeoff.thread_count
        names, metric = tuple(tradeoff.variants), tradeoff.metric
        title = f"{metric.name[:1].upper()}{metric.name[1:]} against latency"
        x_label = f"milliseconds a batch of {len(tradeoff.example)}"
        y_label = f"{metric.name} ({metric.unit})"
        self.panels = (Panel(title, y_label, (x_label,), names, "scatter"),)
        self._sent: dict[int, Place] = {}

    def advance(self) -> bool:
        """Do one piece of work."""
        if self.tradeoff.finished:
            return False
        self.tradeoff.advance()
        return True

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

    def status(self) -> Status:
        """Return how much is measured."""
        left = self.tradeoff.seconds_left
        rounds, batches = self.tradeoff.timed, self.tradeoff.answered
        total = len(self.tradeoff.batches)
        note = f"Round {rounds} of {self.tradeoff.rounds}, {batches:,} of {total:,} test batches"
        note += f" of {self.tradeoff.seeds} seeds." if self.tradeoff.seeds > 1 else "."
        return Status(self.tradeoff.progress, None if left is None else left / 60, note)

    def table(self) -> Table | None:
        """Return the figures so far, with intervals where variants are compared."""
        if not (self.tradeoff.timed or self.tradeoff.answered):
            return None
        return self.tradeoff.table(brief=True)


@feed.register
def _(thing: Tradeoff) -> Feed:
    return TradeoffFeed(thing)
