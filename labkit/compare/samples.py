"""What was measured of several arms, and all that may be said of it.

A race, a tradeoff, ranks and a lesson's own timings differ in how they measure, not in what they
find: some values for each arm, in pairs. So all of them fill one of these, and every table, verdict
and figure of the scoreboard comes from here. Nothing in this file trains or runs a model.

What belongs together is compared in pairs, because what disturbs both cancels:

- times, taken in rounds in which the arms take turns: the median of the ratios of a round;
- one value a training, such as the time to a target: seed by seed;
- scores, one number an example: example by example, or seed by seed if there are several;
- what is counted, such as bytes, is exact.

    samples = Samples.of_timings(interleave({"dense": dense, "sparse": sparse}), LATENCY)
    samples.verdict("sparse")
    samples.table()
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy
from torch import Tensor

from labkit.compare import cells, pairs
from labkit.compare.front import unbeaten
from labkit.compare.intervals import Scores, bounded, mean_score, scaled, score_difference
from labkit.compare.quantity import Quantity
from labkit.compare.verdict import NOTHING, Verdict
from labkit.measure.statistics import Estimate, mean_interval
from labkit.measure.timing import Timing
from labkit.table import Table

On: TypeAlias = str | Quantity | None
"""A quantity, or its name; None is the first one that was measured."""


class Samples:
    """Values of arms x seeds x rounds, and scores of arms x seeds x examples.

    Args:
        arms: their names, in the order in which they take turns (`order_of_round`).
        quantities: what will be measured, in the order of the table's columns; others may follow.

    Attributes:
        baseline: the first arm, which the others are compared with.

    Raises:
        ValueError: no arms, two of one name, or a name that is no text.
    """

    def __init__(self, arms: Iterable[str], quantities: Iterable[Quantity] = ()) -> None:
        self.arms = tuple(arms)
        named = all(isinstance(arm, str) for arm in self.arms)
        if not named or not 0 < len(set(self.arms)) == len(self.arms):
            raise ValueError(f"arms must be different names, at least one, got {self.arms!r}")
        self.baseline = self.arms[0]
        self.quantities = {quantity.name: quantity for quantity in quantities}
        self._values: dict[str, dict[str, pairs.Values]] = {}
        self._scores: dict[str, pairs.ScorePieces] = {}

    @classmethod
    def of_timings(
        cls, timings: Mapping[str, Timing | Sequence[float]], quantity: Quantity
    ) -> "Samples":
        """Return the samples of interleaved times; the first of them is the baseline.

        Args:
            timings: {arm: seconds of each round}; entry i of all belongs to one round.
            quantity: such as LATENCY, or `Quantity.time("a message")`.

        Raises:
            ValueError: no timings, or other numbers of rounds.
        """
        seconds = {n: t.seconds if isinstance(t, Timing) else t for n, t in timings.items()}
        lengths = {name: len(taken) for name, taken in seconds.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"timings must have as many rounds for each arm, got {lengths}")
        samples = cls(seconds, (quantity,))
        for name, taken in seconds.items():
            for number, value in enumerate(taken):
                samples.add(name, quantity, value, round=number)
        return samples

    def add(
        self, arm: str, quantity: Quantity, value: float, *, seed: int = 0, round: int = 0
    ) -> None:
        """Add a value: seconds, bytes, or whatever times the quantity's `scale` is its unit.

        Args:
            arm: whose value it is.
            quantity: what was measured.
            value: inf, for one value a seed, says that this training has not got there.
            seed: number of the training; the same seed of two arms is a pair.
            round: in which it was taken; the same round of a seed of two arms is a pair.

        Raises:
            ValueError: no such arm, another quantity of this name, or a value that is not finite
                or has no ratio.
        """
        self._check_arm(arm)
        self._know(quantity)
        never = quantity.once_a_seed and value == math.inf
        if not (math.isfinite(value) or never) or (quantity.kind == "ratio" and value <= 0):
            wanted = "a positive number" if quantity.kind == "ratio" else "finite"
            raise ValueError(f"value of {quantity.name!r} must be {wanted}, got {value!r}")
        values = self._values.setdefault(quantity.name, {}).setdefault(arm, {})
        values[(0, 0) if quantity.exact else (seed, round)] = value

    def add_scores(
        self, arm: str, quantity: Quantity, scores: Tensor | Sequence[float], *, seed: int = 0
    ) -> None:
        """Add one number an example, after those that are there already.

        Args:
            arm: whose scores they are.
            quantity: of the task's metric (`Quantity.of`), which their mean is.
            scores: (examples,); example i is the same one for every arm.
            seed: number of the training.

        Raises:
            ValueError: no such arm, another quantity of this name, or a score that is not finite.
        """
        self._check_arm(arm)
        self._know(quantity)
        given = scores.detach().cpu().numpy() if isinstance(scores, Tensor) else scores
        new = numpy.asarray(given, dtype=numpy.float64).reshape(-1)
        if not numpy.isfinite(new).all():
            raise ValueError(f"scores of {arm!r} must be finite, got {new}")
        seeds = self._scores.setdefault(quantity.name, {}).setdefault(arm, {})
        seeds.setdefault(seed, []).append(new)

    def quantity(self, on: On = None) -> Quantity:
        """Return the quantity of this name; the first one when left out.

        A Quantity that is given judges by its own margin; all else is as it was measured.

        Raises:
            ValueError: there is none of that name.
        """
        name = on.name if isinstance(on, Quantity) else on
        name = next(iter(self.quantities), None) if name is None else name
        if name is None or name not in self.quantities:
            names = ", ".join(self.quantities) or "nothing yet"
            raise ValueError(f"on must be one of {names}, got {name!r}")
        known = self.quantities[name]
        return replace(known, margin=on.margin) if isinstance(on, Quantity) else known

    def value(self, arm: str, on: On = None) -> Estimate | None:
        """Return one arm's value in the unit of the quantity, or None where nothing is known.

        The median of times, the mean of scores and of one value a seed.

        Raises:
            ValueError: no such arm or quantity.
        """
        self._check_arm(arm)
        quantity = self.quantity(on)
        if scores := self.scores(quantity).get(arm):
            estimate = mean_score(list(scores.values()))
        elif values := self._finite(arm, quantity):
            if quantity.exact:
                estimate = Estimate(values[0], values[0], values[0], 1)
            else:
                estimate = mean_interval(values) if quantity.once_a_seed else pairs.median(values)
        else:
            return None
        return bounded(scaled(estimate, quantity.scale), quantity.low, quantity.high)

    def against(self, arm: str, over: str | None = None, on: On = None) -> Estimate | None:
        """Return `arm` compared with `over` (the baseline when left out), or None.

        A ratio says how many times better `arm` is, a difference is `arm` - `over` in its unit.
        Where a training of either has not got there, those that have must not speak for all: None.

        Raises:
            ValueError: no such arm or quantity.
        """
        over = self.baseline if over is None else over
        self._check_arm(arm, over)
        quantity = self.quantity(on)
        if quantity.name in self._scores:
            scores = self.scores(quantity)
            theirs, mine = scores.get(over, {}), scores.get(arm, {})
            common = [seed for seed in theirs if seed in mine]
            if not common:
                return None
            found = score_difference([theirs[s] for s in common], [mine[s] for s in common])
        else:
            compared = pairs.compare(quantity, *self._paired(arm, over, quantity))
            if compared is None or quantity.kind == "ratio":
                return compared
            found = compared
        span = quantity.high - quantity.low
        return bounded(scaled(found, quantity.scale), -span, span)

    def verdict(self, arm: str, over: str | None = None, on: On = None) -> Verdict:
        """Return what may be claimed of `arm` compared with `over` (the baseline when left out).

        Where nothing was measured, as in a race that was stopped at once, that is "too few".

        Raises:
            ValueError: no such arm or quantity.
        """
        over = self.baseline if over is None else over
        estimate, quantity = self.against(arm, over, on), self.quantity(on)
        return Verdict(arm, over, quantity, NOTHING if estimate is None else estimate)

    def ratios(self, arm: str, over: str | None = None, on: On = None) -> list[float]:
        """Return the ratios behind a verdict, pair by pair in the order of the rounds.

        Raises:
            ValueError: no such arm, or a quantity that is not compared by ratios.
        """
        over = self.baseline if over is None else over
        self._check_arm(arm, over)
        quantity = self.quantity(on)
        if quantity.kind != "ratio":
            raise ValueError(f"{quantity.name!r} is compared by differences: it has no ratios")
        theirs, mine = self._paired(arm, over, quantity)
        return pairs.ratios(quantity, theirs, mine)

    def scores(self, on: On = None) -> dict[str, dict[int, Scores]]:
        """Return {arm: {seed: scores}} on the examples that all have answered."""
        return pairs.common(self._scores.get(self.quantity(on).name, {}))

    def front(self, cost: str | Quantity, worth: str | Quantity) -> tuple[str, ...]:
        """Return the arms that no other beats in both, by point estimates, the cheapest first.

        Args:
            cost: of which less is better, such as LATENCY.
            worth: such as the metric.
        """
        found = {name: (self.value(name, cost), self.value(name, worth)) for name in self.arms}
        places = {n: (c.value, w.value) for n, (c, w) in found.items() if c and w}
        return unbeaten(places, higher_is_better=self.quantity(worth).higher_is_better)

    # -- what is shown -----------------------------------------------------------------------

    def table(self, note: str = "", *, brief: bool = False) -> Table:
        """Return one row an arm.

        Args:
            note: stands before what the figures are based on.
            brief: intervals only where arms are compared; for a view that changes all the time.
        """
        headers, rows = ["arm"], [[arm] for arm in self.arms]
        for quantity in self.quantities.values():
            headers += [quantity.header, *([quantity.versus] if quantity.versus else [])]
            for arm, row in zip(self.arms, rows, strict=True):
                known = list(self._known(arm, quantity).values())
                row.append(cells.own_cell(quantity, self.value(arm, quantity), known, brief))
                if quantity.versus:
                    found = self.against(arm, None, quantity)
                    row.append(cells.versus_cell(quantity, found, arm == self.baseline))
        bases = [
            cells.basis(q, [len(self._finite(arm, q)) for arm in self.arms], self.scores(q))
            for q in self.quantities.values()
        ]
        sampled = any(not quantity.exact for quantity in self.quantities.values())
        parts = [note, *bases, "In brackets: 95 % intervals." if sampled else ""]
        return Table(tuple(headers), tuple(map(tuple, rows)), " ".join(filter(None, parts)))

    def figures(self) -> dict[str, tuple[Estimate, str]]:
        """Return {name: (estimate, unit)} of all that is known, as the scoreboard keeps them."""
        figures: dict[str, tuple[Estimate, str]] = {}
        for arm in self.arms:
            for name, quantity in self.quantities.items():
                if value := self.value(arm, quantity):
                    figures[f"{arm}: {name}"] = (value, quantity.unit)
                found = self.against(arm, None, quantity) if arm != self.baseline else None
                if found and quantity.versus:
                    word = quantity.versus if quantity.kind == "ratio" else name
                    unit = "x" if quantity.kind == "ratio" else quantity.difference_unit
                    figures[f"{arm}: {word} over {self.baseline}"] = (found, unit)
        return figures

    def _check_arm(self, *names: str) -> None:
        for name in names:
            if name not in self.arms:
                raise ValueError(f"there is no arm {name!r}; there are {', '.join(self.arms)}")

    def _know(self, quantity: Quantity) -> None:
        if self.quantities.setdefault(quantity.name, quantity) != quantity:
            raise ValueError(f"quantity {quantity.name!r} is another one than was measured before")

    def _known(self, arm: str, quantity: Quantity) -> pairs.Values:
        return self._values.get(quantity.name, {}).get(arm, {})

    def _finite(self, arm: str, quantity: Quantity) -> tuple[float, ...]:
        known = self._known(arm, quantity)
        return tuple(known[key] for key in sorted(known) if math.isfinite(known[key]))

    def _paired(self, arm: str, over: str, quantity: Quantity) -> pairs.Pair:
        theirs, mine = self._known(over, quantity), self._known(arm, quantity)
        in_turn = not (quantity.exact or quantity.once_a_seed)
        return pairs.paired(theirs, mine, self.arms, over, arm, in_turn=in_turn)
