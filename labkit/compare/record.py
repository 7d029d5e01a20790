"""What one arm of a race did with one seed."""

from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

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
        evaluations: (steps done, training seconds so far, accuracy), the clock standing still.
    """

    seed: int
    rounds: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    evaluations: list[tuple[int, float, float]] = field(default_factory=list)

    @property
    def elapsed(self) -> list[float]:
        """Training seconds after each step."""
        return list(accumulate(self.seconds))

    def timed(self) -> dict[int, float]:
        """Return {round: seconds of its step} without the warm-up."""
        pairs = zip(self.rounds, self.seconds, strict=True)
        return {number: seconds for number, seconds in pairs if number >= WARMUP_ROUNDS}

    def accuracy(self) -> float | None:
        """Return the last accuracy measured, or None."""
        return self.evaluations[-1][2] if self.evaluations else None

    def seconds_to(self, target: float) -> float | None:
        """Return the training seconds at the first evaluation that reached `target`, or None."""
        return next((s for _, s, accuracy in self.evaluations if accuracy >= target), None)

    def as_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers, for a file."""
        return {**vars(self), "evaluations": [list(e) for e in self.evaluations]}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "Record":
        """Return the record that `as_dict` described."""
        return cls(**{**state, "evaluations": [tuple(e) for e in state["evaluations"]]})
