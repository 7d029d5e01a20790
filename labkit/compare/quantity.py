"""What two arms are compared on: its name and unit, and which difference is worth a word.

Times, memory and sizes are compared by their ratio: "1.3x faster" holds for a small net and for a
large one. What has an end to its scale (an accuracy) or a zero without meaning (a loss in nats) is
compared by its difference. Every quantity carries its own margin, the smallest difference that a
reader could use. Without one, a long enough run would call anything: no two arms are equal to the
last digit, if only because one's memory lies a little better than the other's.
"""

import math
from dataclasses import dataclass
from typing import Literal

from labkit.training.task import Metric

MARGIN = 0.02
"""Of ratios: what is less than 2 % faster is not worth changing a training for."""


@dataclass(frozen=True)
class Quantity:
    """Something that arms are compared on.

    Attributes:
        name: such as "step time".
        unit: of one arm's value, such as "ms".
        kind: "ratio" (how many times better) or "difference" (candidate minus baseline).
        better, worse: what is said of the candidate, such as "faster" and "slower here".
        margin: of a ratio: 0.02 is 2 % (above 1.02x or below 1/1.02x); of a difference: in
            `difference_unit`.
        higher_is_better: of the value itself: an accuracy, not a time.
        low, high: what the value can be, in `unit`; no interval goes beyond.
        exact: counted, not sampled: there is no interval, and one value an arm.
        once_a_seed: one value a training, such as the time to a target; otherwise many, taken in
            rounds in which all arms take turns.
        scale: what is measured (seconds, bytes, mean scores) times this is the value in `unit`.
        difference_unit: such as "points" of an accuracy in %.
        header: of the column of values in a table.
        versus: header of the column that compares; "" leaves that column away.

    Raises:
        ValueError: another kind, or a margin below 0.
    """

    name: str
    unit: str
    kind: Literal["ratio", "difference"] = "ratio"
    better: str = "faster"
    worse: str = "slower here"
    margin: float = MARGIN
    higher_is_better: bool = False
    low: float = 0.0
    high: float = math.inf
    exact: bool = False
    once_a_seed: bool = False
    scale: float = 1.0
    difference_unit: str = ""
    header: str = ""
    versus: str = ""

    def __post_init__(self) -> None:
        if not self.margin >= 0:
            raise ValueError(f"margin must be 0 or more, got {self.margin!r}")
        # A frozen dataclass fills what was left away through object.__setattr__.
        object.__setattr__(self, "difference_unit", self.difference_unit or self.unit)
        object.__setattr__(self, "header", self.header or f"{self.name}, {self.unit}")

    @classmethod
    def time(cls, name: str, *, header: str = "", margin: float = MARGIN) -> "Quantity":
        """Return the quantity of times in seconds that are taken in rounds, shown in ms."""
        return cls(name, "ms", margin=margin, scale=1e3, header=header, versus="speed")

    @classmethod
    def of(cls, metric: Metric) -> "Quantity":
        """Return the quantity of a task's metric: mean scores, compared by their difference."""
        versus = f"difference, {metric.difference_unit}"
        return cls(**vars(metric), kind="difference", versus=versus)

    @property
    def same(self) -> float:
        """What an estimate is where both arms are the same: 1 of a ratio, 0 of a difference."""
        return 1.0 if self.kind == "ratio" else 0.0

    @property
    def margin_words(self) -> str:
        """The margin as it is said: "2 %", "0.1 points"."""
        if self.kind == "ratio":
            return f"{100 * self.margin:g} %"
        return f"{self.margin:g} {self.difference_unit}"


STEP_TIME = Quantity.time("step time", header="ms a step")
LATENCY = Quantity.time("latency", header="ms a batch")
FORWARD_TIME = Quantity.time("forward time", header="ms a forward pass")
TIME_TO_TARGET = Quantity("time to target", "s", once_a_seed=True, header="s to the target")
PEAK_MEMORY = Quantity(
    "peak memory",
    "MiB",
    better="smaller",
    worse="larger here",
    exact=True,
    scale=2**-20,
    header="peak MiB a step",
)
SIZE = Quantity("size", "MB", better="smaller", worse="larger", exact=True, scale=1e-6, header="MB")
