"""Scores of several trainings on the same examples, as they come in, and what is common."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy
from torch import Tensor

from labkit.compare.intervals import Scores


@dataclass
class _Evaluation:
    """The latest evaluation of one training: its number, and its scores in pieces."""

    number: int
    pieces: list[Scores] = field(default_factory=list)


class ScoreBook:
    """The latest scores of each arm and seed."""

    def __init__(self) -> None:
        self._latest: dict[str, dict[int, _Evaluation]] = {}

    def add(self, arm: str, seed: int, number: int, scores: Tensor | Sequence[float]) -> None:
        """Add scores: those of the same evaluation follow, those of a later one replace."""
        seeds = self._latest.setdefault(arm, {})
        if seed not in seeds or seeds[seed].number < number:
            seeds[seed] = _Evaluation(number)
        given = scores.detach().cpu().numpy() if isinstance(scores, Tensor) else scores
        seeds[seed].pieces.append(numpy.asarray(given, dtype=numpy.float64).reshape(-1))

    def common(self) -> dict[str, dict[int, Scores]]:
        """Return {arm: {seed: scores}} of the trainings that came furthest, on common examples.

        A training that was stopped half-way must not be averaged with those that went to the end.
        And models answer in turn: one is always a batch ahead, and easy batches differ from hard
        ones. So all are cut to what every one has answered.
        """
        all_seeds = [evaluation for seeds in self._latest.values() for evaluation in seeds.values()]
        furthest = max((evaluation.number for evaluation in all_seeds), default=0)
        used = {
            arm: {
                seed: numpy.concatenate(evaluation.pieces)
                for seed, evaluation in seeds.items()
                if evaluation.number == furthest
            }
            for arm, seeds in self._latest.items()
        }
        count = min((s.size for seeds in used.values() for s in seeds.values()), default=0)
        if not count:
            return {}
        return {a: {seed: s[:count] for seed, s in seeds.items()} for a, seeds in used.items()}
