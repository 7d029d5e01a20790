"""The words for a comparison: faster, slower, or can't tell.

A difference is called only when its whole 95 % interval lies beyond a margin of 2 %. The interval
alone would call one comparison in twenty of a thing with itself; the margin also swallows what no
reader could use, such as one arm's memory lying a little better than the other's.
"""

import math
from dataclasses import dataclass

from labkit.measure.statistics import Estimate

MARGIN = 0.02  # of a ratio
POINTS_MARGIN = 0.1  # of an accuracy, in percentage points


@dataclass(frozen=True)
class Verdict:
    """What a comparison came to. `str` is the sentence.

    Attributes:
        candidate, baseline: names of the arms.
        on: what is compared: "step time", "time to target", "accuracy" or "peak memory".
        estimate: for times and memory baseline / candidate (above 1 is better); for accuracy the
            difference in percentage points (above 0 is better).
        call: "better", "worse" or "can't tell".
    """

    candidate: str
    baseline: str
    on: str
    estimate: Estimate

    @property
    def call(self) -> str:
        """Return "better", "worse" or "can't tell"."""
        if self.on == "accuracy":
            centre, margin = 0.0, POINTS_MARGIN
        else:
            centre, margin = 1.0, MARGIN
        if self.estimate.low > centre + margin:
            return "better"
        if self.estimate.high < centre - margin:
            return "worse"
        return "can't tell"

    def __str__(self) -> str:
        return f"{self.candidate} over {self.baseline}, {self.on}: {self._words()}"

    def __repr__(self) -> str:
        return str(self)

    def _words(self) -> str:
        better, worse = {
            "accuracy": ("more accurate", "less accurate"),
            "peak memory": ("smaller", "larger here"),
        }.get(self.on, ("faster", "slower here"))
        value, low, high = map(
            self._number, (self.estimate.value, self.estimate.low, self.estimate.high)
        )
        if self.estimate.low == self.estimate.high:
            interval = "exact"
        elif math.isinf(self.estimate.high):
            interval = "too few observations for an interval"
        else:
            interval = f"95 % {low} to {high}"
        unit = " points" if self.on == "accuracy" else "x"
        figure, basis = f"{value}{unit}", f"({interval}, n={self.estimate.n})"
        return {
            "better": f"{figure} {better} {basis}",
            "worse": f"{figure}: {worse} {basis}",
            "can't tell": f"can't tell: {figure} {basis}",
        }[self.call]

    def _number(self, value: float) -> str:
        return f"{value:+.2f}" if self.on == "accuracy" else f"{value:.2f}"
