"""How often to do something beside the training, so that it stays cheap.

Six updates a second look alive; the eye gains little from more. But what an update costs depends
on the machine and on what is shown, so a fixed rate is a promise nobody checks. A Throttle measures
the cost of each turn and waits in proportion, between the shortest and the longest interval.
"""

from collections.abc import Callable
from time import perf_counter


class Throttle:
    """Says when the next turn is due, so that turns take at most `share` of the time.

    Args:
        share: of the time that turns may take, 0 to 1; `longest` goes before it.
        shortest, longest: seconds from one turn to the next.
        clock: returns seconds.
    """

    def __init__(
        self,
        share: float,
        shortest: float,
        longest: float,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self.share, self.shortest, self.longest, self.clock = share, shortest, longest, clock
        self._next = clock()

    def due(self) -> bool:
        """Return whether it is time for the next turn."""
        return self.clock() >= self._next

    def done(self, started: float) -> None:
        """Note that a turn which began at `started` (by the same clock) is over."""
        now = self.clock()
        wait = (now - started) / self.share
        self._next = started + min(max(wait, self.shortest), self.longest)
