"""The one place that decides what a comparison may claim.

A difference is called only when its whole 95 % interval lies beyond the margin of its quantity.
The interval alone would call one comparison in twenty of a thing with itself, and with enough
rounds a difference that nobody could use. The same margin works the other way: when the whole
interval lies within it, there is no difference that matters, and that is worth knowing, too. It is
more than "can't tell", which says that this run was too short or too noisy for either.

The margins of a ratio are symmetric on the scale of logarithms: whatever is "better" from one side
is "worse" from the other.

Source of calling equal what lies within a margin: Schuirmann, "A Comparison of the Two One-Sided
Tests Procedure", 1987; we ask it of the 95 % interval where he takes that of 90 %.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from labkit.compare.quantity import Quantity
from labkit.measure.statistics import Estimate
from labkit.units import decimals

Call: TypeAlias = Literal["better", "worse", "no difference that matters", "can't tell", "too few"]
CALLS: tuple[Call, ...] = ("better", "worse", "no difference that matters", "can't tell", "too few")

MOST_DECIMALS = 9
NOTHING = Estimate(math.nan, -math.inf, math.inf, 0)
"""Of a comparison for which nothing was measured."""


@dataclass(frozen=True)
class Verdict:
    """What a comparison came to. `str` is the sentence.

    Attributes:
        candidate, baseline: names of the arms.
        quantity: what is compared.
        estimate: of a ratio how many times better the candidate is (of times and memory
            baseline / candidate); of a difference candidate - baseline, in its unit.
    """

    candidate: str
    baseline: str
    quantity: Quantity
    estimate: Estimate

    @property
    def call(self) -> Call:
        """What may be claimed of the candidate.

        "too few": there is no interval. "better" or "worse": all of it lies beyond the margin.
        "no difference that matters": all of it lies within. "can't tell": anything else.
        """
        return _call(self.quantity, self.estimate.low, self.estimate.high)

    @property
    def not_worse(self) -> bool:
        """Whether the whole interval lies above the margin on the worse side.

        What a cheaper model is asked: not that nothing was found (with few images nothing ever is),
        but that it is known to lose no more than the margin.
        """
        low, _ = _gain(self.quantity, self.estimate.low, self.estimate.high)
        edge, _ = _edges(self.quantity)
        return not self.too_few and low >= edge

    @property
    def too_few(self) -> bool:
        """Whether the observations give no interval."""
        return math.isinf(self.estimate.low) or math.isinf(self.estimate.high)

    @property
    def figures(self) -> str:
        """The figure, its interval and n, without a word on what they mean."""
        return " ".join(self._figure_and_basis())

    @property
    def decimals(self) -> int:
        """As many decimals as it takes to see from the figures why the call is this one."""
        e, fewest = self.estimate, 2
        if self.quantity.kind == "difference":
            fewest = margin_decimals(self.quantity.margin)
        elif 0 < e.value < 0.1:  # three digits that count, of 0.0213x as of 2.13x
            fewest = decimals(e.value)
        if self.too_few:
            return fewest
        for count in range(fewest, MOST_DECIMALS):
            low, high = round(e.low, count), round(e.high, count)
            if _call(self.quantity, low, high) == self.call:
                return count
        return max(fewest, MOST_DECIMALS)

    def number(self, value: float) -> str:
        """Return a value or an end of the interval as the sentence and the table write it."""
        if self.quantity.kind == "ratio":
            return f"{value:.{self.decimals}f}"
        text = f"{value:+.{self.decimals}f}"
        return text.replace("-", "+") if float(text) == 0 else text  # never "-0.00"

    def within(self, margin: float) -> "Verdict":
        """Return the same comparison judged by another margin.

        Raises:
            ValueError: a margin below 0.
        """
        return replace(self, quantity=replace(self.quantity, margin=margin))

    def __repr__(self) -> str:
        return f"{self.candidate} over {self.baseline}, {self.quantity.name}: {self._words()}"

    def _words(self) -> str:
        figure, basis = self._figure_and_basis()
        quantity, call = self.quantity, self.call
        if call == "better":
            # "+0.50 points more accurate", but "-0.05 nats: lower": a minus before a word of less
            # would be read as two minuses.
            colon = ":" if quantity.kind == "difference" and not quantity.higher_is_better else ""
            return f"{figure}{colon} {quantity.better} {basis}"
        if call == "worse":
            return f"{figure}: {quantity.worse} {basis}"
        if call == "too few":
            return f"too few to tell: {figure} {basis}"
        return f"{call} (margin {quantity.margin_words}): {figure} {basis}"

    def _figure_and_basis(self) -> tuple[str, str]:
        """Return the figure with its unit, and what it is based on in brackets."""
        e = self.estimate
        if e.n == 0:
            return "nothing measured", "(n=0)"
        unit = "x" if self.quantity.kind == "ratio" else f" {self.quantity.difference_unit}"
        interval = f"95 % {self.number(e.low)} to {self.number(e.high)}"
        if self.quantity.exact:
            interval = "exact"
        elif self.too_few:
            interval = "no interval"
        return f"{self.number(e.value)}{unit}", f"({interval}, n={e.n})"


def margin_decimals(margin: float) -> int:
    """Return as many decimals as show a difference of this margin, and one more; at least two."""
    return max(2, decimals(margin, 2)) if margin > 0 else 2


def _call(quantity: Quantity, low: float, high: float) -> Call:
    if math.isinf(low) or math.isinf(high):
        return "too few"
    worst, best = _gain(quantity, low, high)
    lower, upper = _edges(quantity)
    if worst > upper:
        return "better"
    if best < lower:
        return "worse"
    return "no difference that matters" if lower <= worst and best <= upper else "can't tell"


def _gain(quantity: Quantity, low: float, high: float) -> tuple[float, float]:
    """Return the interval turned so that more is better, as it is of every ratio."""
    if quantity.kind == "ratio" or quantity.higher_is_better:
        return low, high
    return 0.0 - high, 0.0 - low


def _edges(quantity: Quantity) -> tuple[float, float]:
    """Return where a gain begins to be a loss that matters, and a gain that matters."""
    if quantity.kind == "ratio":
        return 1 / (1 + quantity.margin), 1 + quantity.margin
    return -quantity.margin, quantity.margin
