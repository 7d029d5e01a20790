"""Accuracy against latency: which of several ready models gives most for its time?

A smaller model is no gain in itself: it must be faster on this machine, and lose little. So every
variant is measured in both, against the first one. Latencies are taken in rounds in which the
variants run in turn, so that a busy neighbour hurts all alike. All variants answer the same test
images, and whether each answer was right is kept: two models mostly fail on the same images, so the
difference of a pair is known far better than either accuracy.

The work comes in short pieces: first a few rounds and one batch of answers of every variant, then
more of both. So all points can be drawn early, and their intervals shrink while you watch.

    tradeoff = Tradeoff({"float": net, "int8": small}, test=batches, example=images)
    for done in tradeoff: ...       # stop when you like; iterating again goes on
    tradeoff.table()
    tradeoff.reading("int8")        # is it cheaper, and not worse?

The variants that no other beats in both are the front, named after Pareto: whatever is not on it
needs no further thought.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from labkit.checks import check_positive_int
from labkit.compare import tradeoff_report as report
from labkit.compare.tradeoff_report import Reading, TradePoint
from labkit.compare.verdict import Verdict
from labkit.measure import interleave, order_of_round
from labkit.table import Table

WARMUP_ROUNDS = 2
"""Untimed rounds at the start: kernels are built and weights are packed at the first call."""
FIRST_ROUNDS = 3
"""Timed rounds before the first answers."""


class Tradeoff:
    """Measures accuracy and latency of ready models; iterate to run, piece by piece.

    Latency is that of a variant's first model. It is measured on as many threads as torch has been
    given when a piece of work is done.

    Args:
        variants: {name: model, or a sequence of models, one for each seed}. The first is the
            baseline; model i of every variant belongs with model i of the baseline.
        test: batches (inputs, labels int64) that can be gone through again; a model answers with
            logits (…, classes). The batches are taken once: all variants see the same.
        example: inputs of one batch, whose latency is measured.
        rounds: in which all variants are timed in turn.
        sizes: {name: bytes of its file}; otherwise the bytes of parameters and buffers count.

    Attributes:
        right: {name: one list a seed: whether each answer of a batch was right, bool}.

    Raises:
        ValueError: no variants or no batches, other numbers of models than the baseline has,
            `rounds` out of range, `sizes` of an unknown variant; while iterating, a variant whose
            answers do not fit the labels.
        TypeError: a variant is no module, a batch no pair of tensors, `example` no tensor.
    """

    def __init__(
        self,
        variants: Mapping[str, nn.Module | Sequence[nn.Module]],
        test: Iterable[tuple[Tensor, Tensor]],
        example: Tensor,
        rounds: int = 15,
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        self.variants = _check_variants(variants)
        self.baseline = next(iter(self.variants))
        self.seeds = len(self.variants[self.baseline])
        self.batches = _check_batches(test)
        if not isinstance(example, Tensor):
            raise TypeError(f"example must be a tensor of inputs, got {type(example).__name__}")
        check_positive_int("rounds", rounds)
        self.example, self.rounds = example, rounds
        self.sizes = _check_sizes(sizes or {}, self.variants)
        self.right: dict[str, list[list[Tensor]]] = {
            name: [[] for _ in models] for name, models in self.variants.items()
        }
        self._times: list[dict[str, float]] = []  # one dictionary a round
        self._warmups = 0
        self._round_seconds, self._evaluation_seconds = 0.0, 0.0

    # -- the work ----------------------------------------------------------------------------

    def __iter__(self) -> Iterator[float]:
        """Do the work piece by piece; yield the progress after each."""
        while not self.finished:
            self.advance()
            yield self.progress

    def advance(self) -> None:
        """Do one piece of work: a round of latencies, or one model's answers to one batch.

        Raises:
            ValueError: all is done, or a variant's answers do not fit the labels.
        """
        if self.finished:
            raise ValueError("the tradeoff is finished: there is no work left")
        began = perf_counter()
        if self._round_is_due():
            self._round()
            self._round_seconds += perf_counter() - began
        else:
            self._evaluate()
            self._evaluation_seconds += perf_counter() - began

    def _round_is_due(self) -> bool:
        """Whether it is a round's turn: a few first, the others spread over the later answers."""
        first = min(FIRST_ROUNDS, self.rounds)
        each_one = self.seeds * len(self.variants)
        done, total = self._evaluated - each_one, self._evaluations - each_one
        share = 0 if done < 0 else done / total if total else 1
        due = first + int((self.rounds - first) * share)
        return self._rounds_done < WARMUP_ROUNDS + due

    @torch.no_grad()
    def _round(self) -> None:
        order = order_of_round(list(self.variants), self._rounds_done)
        models = [self.variants[name][0] for name in order]
        calls = {n: partial(model, self.example) for n, model in zip(order, models, strict=True)}
        count, device = torch.get_num_threads(), self.example.device
        time = partial(interleave, rounds=1, warmup=0, threads=count, device=device)
        with _evaluating(models):
            # Thrown away: so what went before, such as drawing, does not fall on the first one.
            time({order[-1]: calls[order[-1]]})
            timings = time(calls)
        if self._warmups < WARMUP_ROUNDS:
            self._warmups += 1
        else:
            self._times.append({name: 1e3 * timing.median for name, timing in timings.items()})

    @torch.no_grad()
    def _evaluate(self) -> None:
        names = list(self.variants)
        batch, rest = divmod(self._evaluated, self.seeds * len(names))
        seed, place = divmod(rest, len(names))
        name, model = names[place], self.variants[names[place]][seed]
        inputs, labels = self.batches[batch]
        with _evaluating([model]):
            answers = model(inputs).argmax(dim=-1)
        if answers.shape != labels.shape:
            raise ValueError(
                f"variants[{name!r}] must answer with logits {(*labels.shape, 'classes')}, "
                f"but their best classes have the shape {tuple(answers.shape)}"
            )
        self.right[name][seed].append((answers == labels).flatten().cpu())

    # -- how far it is -----------------------------------------------------------------------

    @property
    def _rounds_done(self) -> int:
        return self._warmups + len(self._times)

    @property
    def _evaluated(self) -> int:
        return sum(len(batches) for seeds in self.right.values() for batches in seeds)

    @property
    def _evaluations(self) -> int:
        return len(self.batches) * self.seeds * len(self.variants)

    @property
    def progress(self) -> float:
        """Share of the pieces of work that are done, 0 to 1."""
        done = self._rounds_done + self._evaluated
        return done / (WARMUP_ROUNDS + self.rounds + self._evaluations)

    @property
    def finished(self) -> bool:
        """Whether everything is measured."""
        return self.progress == 1

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end at the pace so far, or None before the first answers."""
        if not self._evaluated:
            return None
        a_round = self._round_seconds / self._rounds_done
        an_evaluation = self._evaluation_seconds / self._evaluated
        rounds = WARMUP_ROUNDS + self.rounds - self._rounds_done
        return rounds * a_round + (self._evaluations - self._evaluated) * an_evaluation

    # -- what came out -----------------------------------------------------------------------

    def milliseconds(self, name: str) -> tuple[float, ...]:
        """Return the latency of a variant in each round, without the warm-up."""
        return tuple(times[name] for times in self._times)

    @property
    def points(self) -> dict[str, TradePoint]:
        """What is known of each variant, on the batches that all have answered so far."""
        return report.points(self)

    @property
    def front(self) -> tuple[str, ...]:
        """Names of the variants that none beats in both, the fastest first, by point estimates."""
        return report.front(self.points)

    def verdict(self, candidate: str, *, over: str | None = None, on: str = "accuracy") -> Verdict:
        """Return how `candidate` compares with `over` (the baseline when left out).

        Args:
            on: "accuracy" or "latency".

        Raises:
            ValueError: no such variant or comparison, or nothing measured for it yet.
        """
        return report.verdict(self, candidate, over or self.baseline, on)

    def reading(self, candidate: str, *, over: str | None = None, allowed: float = 0.3) -> Reading:
        """Return whether `candidate` is cheaper and loses at most `allowed` points of accuracy.

        Raises:
            ValueError: no such variant, nothing measured yet, or `allowed` is negative.
        """
        return report.reading(self, candidate, over or self.baseline, allowed)

    def table(self) -> Table:
        """Return one row a variant: accuracy, points lost, latency, speed, size."""
        return report.table(self)

    def row(self, what: str, *, notebook: str = "", profile: str = "") -> dict[str, Any]:
        """Return the scoreboard row of this tradeoff; see `labkit.compare.scoreboard`."""
        return report.row(self, what, notebook=notebook, profile=profile)


@contextmanager
def _evaluating(models: Sequence[nn.Module]) -> Iterator[None]:
    """Put models into evaluation mode; every part gets back the mode it was in."""
    modes = [(part, part.training) for model in models for part in model.modules()]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _check_variants(variants: object) -> dict[str, tuple[nn.Module, ...]]:
    if not isinstance(variants, Mapping):
        raise TypeError(f"variants must be {{name: model}}, got {type(variants).__name__}")
    if not variants:
        raise ValueError("variants is empty: give at least the baseline")
    checked: dict[str, tuple[nn.Module, ...]] = {}
    for name, given in variants.items():
        models = (given,) if isinstance(given, nn.Module) else given
        if not isinstance(models, Sequence) or not all(isinstance(m, nn.Module) for m in models):
            kind = type(given).__name__
            raise TypeError(f"variants[{name!r}] must be a module or several, got {kind}")
        checked[name] = tuple(models)
    counts = {name: len(models) for name, models in checked.items()}
    if min(counts.values()) == 0 or len(set(counts.values())) > 1:
        raise ValueError(f"variants must have a model for each of the same seeds, got {counts}")
    return checked


def _check_batches(test: Iterable[tuple[Tensor, Tensor]]) -> tuple[tuple[Tensor, Tensor], ...]:
    if not isinstance(test, Iterable) or isinstance(test, Iterator):
        raise TypeError(
            "test must be batches that can be gone through again, such as a list, "
            f"got {type(test).__name__}"
        )
    batches = tuple(test)
    if not batches:
        raise ValueError("test is empty: there is nothing to answer")
    for batch in batches:
        if not (
            isinstance(batch, tuple | list) and [isinstance(b, Tensor) for b in batch] == [True] * 2
        ):
            raise TypeError(f"test must hold pairs (inputs, labels), got {type(batch).__name__}")
    return batches


def _check_sizes(sizes: Mapping[str, int], known: Mapping[str, object]) -> dict[str, int]:
    for name, size in sizes.items():
        if name not in known:
            raise ValueError(
                f"sizes has {name!r}, which is no variant; there are {', '.join(known)}"
            )
        check_positive_int(f"sizes[{name!r}]", size)
    return dict(sizes)
