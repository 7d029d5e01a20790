"""Can the verdict be trusted? Two hundred short races whose right answer is known.

In half of them an arm races against itself: the right answer is "no difference that matters", and
"better" and "worse" are wrong ("can't tell" is no error: a short race is entitled to it). In the
other half one arm's step is 10 % longer than the other's: the right answer is "worse". The race is
the lab's own, with all that it does; only the network is small, so that a race takes about a
second.

The 10 % are planted as waiting, in the forward pass, for a tenth of the time that the other arm's
latest step took. So they stay 10 % when the machine gets slower or faster.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

from torch import Tensor, nn

from benchmarks.rows import Row
from labkit import SGD, Race, Recipe, data, models
from labkit.compare import Verdict
from labkit.compare.intervals import scaled, share
from labkit.compare.verdict import CALLS, Call
from labkit.measure.statistics import Estimate, median_interval

RACES, ROUNDS = 100, 53  # rounds of a race; the first three are its warm-up
BASELINE, OTHER = "plain", "other"
SHARE = 0.10  # of a step, planted


@dataclass
class Plant:
    """A wait of `share` of the latest step of the other arm; none before that has run."""

    share: float
    clock: Callable[[], float] = perf_counter
    other_seconds: float = 0.0

    def wait(self) -> None:
        """Keep the processor busy, as a slower step would; a sleep would let it cool down."""
        until = self.clock() + self.share * self.other_seconds
        while self.clock() < until:
            pass


class Delayed(nn.Module):
    """A model whose forward pass, while it trains, takes longer by what `plant` says."""

    def __init__(self, inner: nn.Module, plant: Plant) -> None:
        super().__init__()
        self.inner, self.plant = inner, plant

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.inner(inputs)
        if self.training:
            self.plant.wait()
        return outputs


@dataclass
class Outcome:
    """What became of the races of one kind."""

    verdicts: list[Verdict] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def share(self, *calls: Call) -> Estimate:
        """Return how many per cent of the races got one of these calls, with Wilson's interval."""
        made = self.calls()
        return scaled(share(sum(made[call] for call in calls), len(self.verdicts)), 100)

    def calls(self) -> Counter[Call]:
        """Return how often each call was made."""
        return Counter(verdict.call for verdict in self.verdicts)

    def ratios(self) -> list[float]:
        """Return the speed of the other arm over the baseline, one figure a race."""
        return [verdict.estimate.value for verdict in self.verdicts]


def run(quick: bool = False) -> list[Row]:
    """Return the shares of right verdicts, the speeds measured, and what a race takes."""
    races, rounds = (6, 23) if quick else (RACES, ROUNDS)
    recipe = Recipe(
        partial(models.convnet, width=8),
        data.fashion(train=6_400, test=100),
        optimizer=SGD(lr=0.1),
        batch_size=64,
        steps=rounds,
        device="cpu",
    )
    same, planted = hold(recipe, races)
    return rows(same, planted, rounds)


def hold(recipe: Recipe, races: int) -> tuple[Outcome, Outcome]:
    """Hold `races` races of each kind in alternation, each with a seed of its own."""
    same, planted = Outcome(), Outcome()
    for number in range(races):
        seeded = recipe.but(seed=number)
        one_race(seeded, None, same)
        one_race(seeded, Plant(SHARE), planted)
    return same, planted


def one_race(recipe: Recipe, plant: Plant | None, outcome: Outcome) -> Race:
    """Run a race of the recipe against itself, slowed by `plant`, and add its verdict."""
    other = recipe
    if plant is not None:
        make, slow = recipe.model, plant
        other = recipe.but(model=lambda: Delayed(make(), slow))
    race = Race({BASELINE: recipe, OTHER: other}, seeds=1, evaluations=1)
    began = perf_counter()
    for done in race:
        if plant is not None:
            plant.other_seconds = done.steps[BASELINE].seconds
    outcome.seconds.append(perf_counter() - began)
    outcome.verdicts.append(race.verdict(OTHER, over=BASELINE, on="step time"))
    return race


def rows(same: Outcome, planted: Outcome, rounds: int) -> list[Row]:
    """Return the rows of both kinds."""
    truth, itself = 1 / (1 + SHARE), "arm against itself"
    equal: Call = "no difference that matters"
    unclaimed = same.share(equal, "can't tell", "too few")
    return [
        Row(f"{itself}: no difference claimed", unclaimed, "%", _listed(same.calls())),
        Row(f'{itself}: "{equal}"', same.share(equal), "%", "right is 100"),
        Row(f'{SHARE:.0%} planted: "worse"', planted.share("worse"), "%", _listed(planted.calls())),
        Row("arm against itself: speed", median_interval(same.ratios()), "x", "the truth is 1"),
        Row(
            f"{SHARE:.0%} planted: speed",
            median_interval(planted.ratios()),
            "x",
            f"the truth is {truth:.3f}",
        ),
        Row(
            "a race",
            median_interval(same.seconds + planted.seconds),
            "s",
            f"{rounds} rounds, first 3 warm-up; verdicts spread by {_spread(same.ratios()):.1f} %",
        ),
    ]


def _listed(calls: Counter[Call]) -> str:
    """Return how often each call was made."""
    return ", ".join(f"{call}: {calls[call]}" for call in CALLS if calls[call])


def _spread(ratios: Sequence[float]) -> float:
    """Return the standard deviation of ratios near 1 in per cent."""
    return 100 * statistics.stdev(ratios)
