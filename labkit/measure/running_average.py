"""The loss of single batches jumps about: show its running average instead.

As Adam does with its moments: an average that forgets, divided by the weight it has gathered so
far, so that the first values count in full.
"""

import math
from collections.abc import Iterable

KEPT = 0.9
"""Of the average at each new value: the last ten count most."""


class RunningAverage:
    """An average that forgets."""

    def __init__(self) -> None:
        self._average = self._weight = 0.0

    def add(self, value: float) -> float:
        """Take in a value and return the average."""
        self._average = KEPT * self._average + (1 - KEPT) * value
        self._weight = KEPT * self._weight + (1 - KEPT)
        return self.value

    @property
    def value(self) -> float:
        """The average so far; not a number while there is none."""
        return self._average / self._weight if self._weight else math.nan


def running_averages(values: Iterable[float]) -> list[float]:
    """Return the average after each value."""
    average = RunningAverage()
    return [average.add(value) for value in values]
