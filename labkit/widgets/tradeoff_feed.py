"""What a live view shows of a tradeoff: every variant as a point, accuracy against latency.

A point does not grow into a curve: it moves, and the bars of its intervals shrink. So all that is
sent is a point's newest place, and only when it has changed. The figures of the table are those
that compare; the intervals of the others are the bars.

A round of latencies is one unit of work: nothing is sent while the clock runs.
"""

from collections.abc import Sequence

from labkit.compare import Tradeoff
from labkit.compare.tradeoff_report import HEADERS, rows, seen
from labkit.table import Table
from labkit.watch import Feed, Point, Status, feed
from labkit.widgets.scatter import Spot, panel_of, spots_of


class TradeoffFeed:
    """A tradeoff, one piece of its work a unit."""

    def __init__(self, tradeoff: Tradeoff) -> None:
        self.tradeoff = tradeoff
        self.panels = (panel_of(tradeoff),)
        self._sent: dict[int, Spot] = {}

    def advance(self) -> bool:
        """Do one piece of work."""
        if self.tradeoff.finished:
            return False
        self.tradeoff.advance()
        return True

    def rows(self) -> Sequence[Point]:
        """Return value, low and high of every point that has moved."""
        moved = [spot for spot in spots_of(self.tradeoff) if self._sent.get(spot.series) != spot]
        self._sent |= {spot.series: spot for spot in moved}
        return [
            Point(0, spot.series, x, y)
            for spot in moved
            for x, y in zip(spot.x, spot.y, strict=True)
        ]

    def status(self) -> Status:
        """Return how much is measured."""
        left = self.tradeoff.seconds_left
        rounds, answers = seen(self.tradeoff)
        total = sum(labels.numel() for _, labels in self.tradeoff.batches)
        note = f"Round {rounds} of {self.tradeoff.rounds}, {answers:,} of {total:,} test answers"
        note += f" of {self.tradeoff.seeds} seeds." if self.tradeoff.seeds > 1 else "."
        return Status(self.tradeoff.progress, None if left is None else left / 60, note)

    def table(self) -> Table | None:
        """Return the figures so far, with intervals where variants are compared."""
        if seen(self.tradeoff) == (0, 0):
            return None
        note = "In brackets and as bars: 95 % intervals."
        return Table(HEADERS, rows(self.tradeoff, brief=True), note)


@feed.register
def _(thing: Tradeoff) -> Feed:
    return TradeoffFeed(thing)
