"""A curve of single batches' losses jumps about: show its running average instead.

As Adam does with its moments: an average that forgets, divided by the weight it has gathered so
far, so that the first values count in full.
"""

import math
from collections.abc import Iterable

SMOOTHING = 0.9
"""What is kept of the average at each new value."""


class Smooth:
    """A running average."""

    def __init__(self) -> None:
        self._average = self._weight = 0.0

    def add(self, value: float) -> float:
        """Take in a value and return the average."""
        self._average = SMOOTHING * self._average + (1 - SMOOTHING) * value
        self._weight = SMOOTHING * self._weight + (1 - SMOOTHING)
        return self.value

    @property
    def value(self) -> float:
        """The average so far; not a number while there is none."""
        return self._average / self._weight if self._weight else math.nan


def smooth(values: Iterable[float]) -> list[float]:
    """Return the running average after each value."""
    average = Smooth()
    return [average.add(value) for value in values]
