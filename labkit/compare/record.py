"""What happened in a race: in a round, to one arm with one seed, and to all as samples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from labkit.compare.quantity import PEAK_MEMORY, STEP_TIME, TIME_TO_TARGET, Quantity
from labkit.compare.samples import Samples
from labkit.training import Step

# The first steps of a process build kernels and fill caches: they are no measure of a step.
WARMUP_ROUNDS = 3


@dataclass
class Record:
    """Steps and evaluations of one arm with one seed.

    Attributes:
        seed: of weights, data and everything random.
        rounds: the round in which each step was done.
        seconds: of each step.
        losses: of each step.
        evaluations: (steps done, `training_seconds` so far, mean score); the clock stands still.
        scores: of the last evaluation, one number an example, float (examples,), or None.
        peak_bytes: of one step of the first seed, above weights, optimizer and data, or None.
        profiled: number of the step in which that was measured, from 0, or None.
    """

    seed: int
    rounds: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    evaluations: list[tuple[int, float, float]] = field(default_factory=list)
    scores: Tensor | None = field(default=None, compare=False)  # a tensor has no one ==
    peak_bytes: int | None = None
    profiled: int | None = None

    def timed(self) -> dict[int, float]:
        """Return {round: seconds of its step} without the warm-up."""
        pairs = zip(self.rounds, self.seconds, strict=True)
        return {number: seconds for number, seconds in pairs if number >= WARMUP_ROUNDS}

    def training_seconds(self) -> list[float]:
        """Return the seconds of each step by the clock that shows how long the training has taken.

        The profiler of memory makes its step several times slower. So the clock stands still in
        that one, and the next step counts twice.
        """
        seconds = list(self.seconds)
        if self.profiled is not None and self.profiled < len(seconds):
            seconds[self.profiled] = 0.0
            if self.profiled + 1 < len(seconds):
                seconds[self.profiled + 1] *= 2
        return seconds

    def evaluate(self, scores: Tensor) -> float:
        """Keep the scores of an evaluation, and return their mean."""
        mean = float(scores.double().mean())
        self.scores = scores
        self.evaluations.append((len(self.seconds), sum(self.training_seconds()), mean))
        return mean

    def seconds_to(self, target: float, higher_is_better: bool) -> float | None:
        """Return the training seconds at the first evaluation that reached `target`, or None."""
        sign = 1 if higher_is_better else -1
        reached = (s for _, s, score in self.evaluations if sign * (score - target) >= 0)
        return next(reached, None)

    def as_dict(self) -> dict[str, Any]:
        """Return plain lists, numbers and a tensor, for a file."""
        return {**vars(self), "evaluations": [list(e) for e in self.evaluations]}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "Record":
        """Return the record that `as_dict` described."""
        return cls(**{**state, "evaluations": [tuple(e) for e in state["evaluations"]]})


@dataclass(frozen=True)
class Round:
    """What happened in one round: each arm's step, and mean scores where arms were evaluated.

    An arm with fewer steps than the longest one rests in some rounds.
    """

    seed: int
    number: int
    steps: dict[str, Step]
    scores: dict[str, float]


def samples_of(
    records: Mapping[str, Sequence[Record]], metric: Quantity, target: float | None
) -> Samples:
    """Return the samples of a race, in the order of the columns of its table.

    Args:
        records: {arm: one record a seed}, the baseline first.
        metric: which the mean of all scores is.
        target: mean score of the time to target, or None.
    """
    to_target = TIME_TO_TARGET
    if target is not None:
        shown = f"{metric.scale * target:g} {metric.unit}"
        to_target = replace(TIME_TO_TARGET, header=f"s to {shown}")
    columns = (STEP_TIME, metric, *([] if target is None else [to_target]), PEAK_MEMORY)
    samples = Samples(records, columns)
    # A training that was stopped half-way must not be averaged with those that went to the end.
    furthest = max((len(r.evaluations) for of_arm in records.values() for r in of_arm), default=0)
    for arm, of_arm in records.items():
        for seed, record in enumerate(of_arm):
            for number, seconds in record.timed().items():
                samples.add(arm, STEP_TIME, seconds, seed=seed, round=number)
            if record.scores is not None and len(record.evaluations) == furthest:
                samples.add_scores(arm, metric, record.scores, seed=seed)
            if target is not None and record.evaluations:
                took = record.seconds_to(target, metric.higher_is_better)
                samples.add(arm, to_target, math.inf if took is None else took, seed=seed)
            if record.peak_bytes is not None:
                samples.add(arm, PEAK_MEMORY, record.peak_bytes)
    return samples
