"""Quality against latency: which of several ready models gives most for its time?

A smaller model is no gain in itself: it must be faster on this machine, and lose little. So every
variant is measured in both, against the first one. Latencies are taken in rounds in which the
variants run in turn, so that a busy neighbour hurts all alike. All variants answer the same test
batches, and the score of each example is kept: two models mostly fail on the same ones, so the
difference of a pair is known far better than the quality of either.

The work comes in short pieces: first a few rounds and one batch of answers of every variant, then
more of both. So all points can be drawn early, and their intervals shrink while you watch.

    tradeoff = Tradeoff({"float": net, "int8": small}, test=batches, example=images)
    for done in tradeoff: ...       # stop when you like; iterating again goes on
    tradeoff.table()
    tradeoff.reading("int8", allowed=0.5)       # is it cheaper, and not worse?

The variants that no other beats in both are the front, named after Pareto: whatever is not on it
needs no further thought.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import torch
from torch import Tensor, nn

from labkit.checks import check_positive_int, explaining
from labkit.compare.quantity import LATENCY, SIZE, Quantity
from labkit.compare.refused import check_batches, check_variants
from labkit.compare.samples import Samples
from labkit.compare.verdict import Verdict
from labkit.facts import threads
from labkit.measure import interleave, order_of_round
from labkit.table import Table
from labkit.training.evaluate import evaluation_mode, scores
from labkit.training.task import Batch, Task, classify

WARMUP_ROUNDS = 2
"""Untimed rounds at the start: kernels are built and weights are packed at the first call."""
FIRST_ROUNDS = 3
"""Timed rounds before the first answers."""


@dataclass(frozen=True)
class Reading:
    """Is a variant cheaper, and not worse? Two verdicts, read together; `str` is the sentence.

    "No difference found" is not enough for the second: with few examples nothing is ever found. It
    must be known to lose no more than what may be lost.

    Attributes:
        speed: the verdict on the latency.
        quality: the verdict on the metric; its margin is what may be lost.
    """

    speed: Verdict
    quality: Verdict

    @property
    def call(self) -> str:
        """What may be claimed.

        "cheaper and not worse", "cheaper but worse", "not cheaper", "too few" or "can't tell".
        """
        if self.speed.call in ("worse", "no difference that matters"):
            return "not cheaper"
        if self.speed.call != "better":
            return self.speed.call
        if self.quality.not_worse:
            return "cheaper and not worse"
        if self.quality.call == "worse":
            return "cheaper but worse"
        return "too few" if self.quality.too_few else "can't tell"

    def __repr__(self) -> str:
        names = f"{self.speed.candidate} over {self.speed.baseline}"
        quantity = self.quality.quantity
        return (
            f"{names}: {self.call}: {self.speed.figures} in speed, {quantity.name} "
            f"{self.quality.figures}, {quantity.margin_words} may be lost"
        )


class Tradeoff:
    """Measures quality and latency of ready models; iterate to run, piece by piece.

    Latency is that of a variant's first model.

    Args:
        variants: {name: model, or a sequence of models, one for each seed}. The first is the
            baseline; model i of every variant belongs with model i of the baseline.
        test: batches that the task reads. They are taken once: all variants see the same.
        example: inputs of one batch, whose latency is measured.
        rounds: in which all variants are timed in turn.
        sizes: {name: bytes of its file}, for one more column of the table.
        task: says what the score of an answer is; classification when left out.
        thread_count: torch threads; see `labkit.facts` for why one is the default.

    Attributes:
        metric: the quantity that the mean of all scores is.
        samples: all that was measured so far.

    Raises:
        ValueError: no variants or no batches, other numbers of models than the baseline has,
            `rounds` out of range, `sizes` of an unknown variant; while iterating, a variant whose
            answers do not fit the batch.
        TypeError: a variant is no module, `test` is no batches, `example` is no tensor.
    """

    def __init__(
        self,
        variants: Mapping[str, nn.Module | Sequence[nn.Module]],
        test: Iterable[Batch],
        example: Tensor,
        rounds: int = 15,
        sizes: Mapping[str, int] | None = None,
        *,
        task: Task | None = None,
        thread_count: int = 1,
    ) -> None:
        self.variants = check_variants(variants)
        self.baseline = next(iter(self.variants))
        self.seeds = len(self.variants[self.baseline])
        self.batches = check_batches(test)
        check_positive_int("rounds", rounds)
        check_positive_int("thread_count", thread_count)
        self.example, self.rounds, self.thread_count = example, rounds, thread_count
        self.task = classify() if task is None else task
        self.metric = Quantity.of(self.task.metric)
        self.samples = Samples(self.variants, (self.metric, LATENCY))
        for name, size in (sizes or {}).items():
            self.samples.add(name, SIZE, size)
        self._evaluated = self._rounds_done = 0
        self._round_seconds, self._evaluation_seconds = 0.0, 0.0
        # Of the batch that is being answered: its scores count once all models have answered it.
        self._answers: list[tuple[str, int, Tensor]] = []

    # -- the work ----------------------------------------------------------------------------

    def __iter__(self) -> Iterator[float]:
        """Do the work piece by piece; yield the progress after each."""
        with threads(self.thread_count):  # held over all pieces: see Race.__iter__
            while not self.finished:
                self.advance()
                yield self.progress

    def advance(self) -> None:
        """Do one piece of work: a round of latencies, or one model's answers to one batch.

        Raises:
            ValueError: all is done, or a variant's answers do not fit the batch.
        """
        if self.finished:
            raise ValueError("the tradeoff is finished: there is no work left")
        began = perf_counter()
        with threads(self.thread_count):
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
        time = partial(
            interleave, rounds=1, warmup=0, threads=self.thread_count, device=self.example.device
        )
        with evaluation_mode(*models), explaining("a variant's forward pass", self.example):
            # Thrown away: so what went before, such as drawing, does not fall on the first one.
            time({order[-1]: calls[order[-1]]})
            timings = time(calls)
        if self._rounds_done >= WARMUP_ROUNDS:
            for name, timing in timings.items():
                self.samples.add(name, LATENCY, timing.median, round=self._rounds_done)
        self._rounds_done += 1

    @torch.no_grad()
    def _evaluate(self) -> None:
        names = list(self.variants)
        batch, rest = divmod(self._evaluated, self.seeds * len(names))
        seed, place = divmod(rest, len(names))
        name, model = names[place], self.variants[names[place]][seed]
        try:
            found = scores(model, [self.batches[batch]], self.task)
        except (ValueError, FloatingPointError) as error:
            raise type(error)(f"variants[{name!r}]: {error}") from error
        self._answers.append((name, seed, found))
        self._evaluated += 1
        if rest + 1 == self.seeds * len(names):
            for name, seed, found in self._answers:
                self.samples.add_scores(name, self.metric, found, seed=seed)
            self._answers.clear()

    # -- how far it is -----------------------------------------------------------------------

    @property
    def _evaluations(self) -> int:
        return len(self.batches) * self.seeds * len(self.variants)

    @property
    def timed(self) -> int:
        """Rounds of latencies that count: done, and no warm-up."""
        return max(0, self._rounds_done - WARMUP_ROUNDS)

    @property
    def answered(self) -> int:
        """Test batches that every model has answered."""
        return self._evaluated // (self.seeds * len(self.variants))

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

    @property
    def front(self) -> tuple[str, ...]:
        """Names of the variants that none beats in both, the fastest first, by point estimates."""
        return self.samples.front(LATENCY, self.metric)

    def verdict(self, candidate: str, *, over: str | None = None, on: str | None = None) -> Verdict:
        """Return how `candidate` compares with `over` (the baseline when left out).

        Args:
            candidate: name of a variant.
            over: the one that it is compared with.
            on: "latency", "size" or the metric's name; the metric when left out.

        Raises:
            ValueError: no such variant or comparison.
        """
        return self.samples.verdict(candidate, over, on or self.metric)

    def reading(self, candidate: str, *, allowed: float, over: str | None = None) -> Reading:
        """Return whether `candidate` is cheaper and not worse.

        Args:
            candidate: name of a variant.
            allowed: how much of the metric it may lose, in the unit of its difference.
            over: the one that it is compared with.

        Raises:
            ValueError: no such variant, or `allowed` is negative.
        """
        if not allowed >= 0:
            of = f"{self.metric.difference_unit} of {self.metric.name}"
            raise ValueError(f"allowed must be {of}, 0 or more, got {allowed!r}")
        speed = self.verdict(candidate, over=over, on=LATENCY.name)
        return Reading(speed, self.verdict(candidate, over=over).within(allowed))

    def table(self, *, brief: bool = False) -> Table:
        """Return one row a variant: quality and its difference, latency, speed, size."""
        names = "; ".join(self.front)
        note = f"On the front, by point estimates: {names}." if names else ""
        return self.samples.table(note, brief=brief)
