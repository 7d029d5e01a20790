"""What a live view shows of a tradeoff: every variant as a point, quality against latency.

A point does not grow into a curve: it moves, and the bars of its intervals shrink. So all that is
sent is a point's newest place, and only when it has changed. The figures of the table are those
that compare; the intervals of the others are the bars.

A round of latencies is one unit of work: nothing is sent while the clock runs.
"""

from collections.abc import Sequence

from labkit.compare import Tradeoff
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
