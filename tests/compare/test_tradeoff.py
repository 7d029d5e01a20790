"""Tradeoffs of planted models, whose answers are known: accuracies, latencies, order of work."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest
import torch
from support.tradeoffs import Planted, batches, done, made
from torch import Tensor, nn

from labkit.compare import LATENCY, Tradeoff
from labkit.compare.intervals import matched_difference, scaled, share
from labkit.compare.tradeoff import FIRST_ROUNDS, WARMUP_ROUNDS
from labkit.measure import Estimate
from labkit.measure.statistics import mean_interval
from labkit.training.task import next_token

# -- accuracy ------------------------------------------------------------------------------------


def accuracy(tradeoff: Tradeoff, name: str) -> Estimate | None:
    return tradeoff.samples.value(name, tradeoff.metric)


def gained(tradeoff: Tradeoff, name: str) -> Estimate | None:
    return tradeoff.samples.against(name, on=tradeoff.metric)


def points(only_first: int, only_second: int, n: int) -> Estimate:
    return scaled(matched_difference(only_first, only_second, n), 100)


def test_one_model_each_is_paired_image_by_image() -> None:
    tradeoff = done(made())
    assert accuracy(tradeoff, "base") == scaled(share(90, 100), 100)
    assert accuracy(tradeoff, "small") == scaled(share(80, 100), 100)
    assert gained(tradeoff, "small") == points(5, 15, 100)
    assert tradeoff.verdict("small").estimate.value == -10
    assert accuracy(made(), "base") is None


def test_seeds_are_paired_in_their_order() -> None:
    wrong = {"base": (10, 20, 30), "small": (12, 23, 31)}  # mispaired they would lie far apart
    variants = {name: [Planted(range(n)) for n in numbers] for name, numbers in wrong.items()}
    tradeoff = done(made(variants))
    own, gain = accuracy(tradeoff, "small"), gained(tradeoff, "small")
    for estimate, samples in ((own, [88, 77, 69]), (gain, [-2, -3, -1])):
        expected = mean_interval(samples)
        assert estimate is not None and estimate.n == 3
        high = min(100.0, expected.high)  # no accuracy is higher
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
            (expected.value, expected.low, high)
        )
    assert tradeoff.verdict("small").estimate.value == pytest.approx(-2)


def test_half_way_all_are_compared_on_the_batches_that_all_have_answered() -> None:
    variants = {"base": [Planted(), Planted()], "small": [Planted(range(8)), Planted(range(4))]}
    tradeoff = made(variants, count=40, size=10)
    for _ in tradeoff:
        seen = 10 * tradeoff.answered
        for name, wrong in (("base", (0, 0)), ("small", (8, 4))):
            found = accuracy(tradeoff, name)
            if not seen:
                assert found is None
                continue
            expected = 100 - 100 * sum(min(number, seen) for number in wrong) / 2 / seen
            assert found is not None and found.value == pytest.approx(expected)


class Sure(nn.Module):
    """Says every token again, as sure of it as told."""

    def __init__(self, sure: float) -> None:
        super().__init__()
        self.sure = sure

    def forward(self, tokens: Tensor) -> Tensor:
        return self.sure * nn.functional.one_hot(tokens, 5).float()


def test_language_models_are_compared_in_nats_text_by_text() -> None:
    generator = torch.Generator().manual_seed(0)
    texts = torch.randint(5, (40, 8), generator=generator)
    targets = texts.where(torch.rand(40, 8, generator=generator) < 0.6, 0)
    parts = list(zip(texts.split(10), targets.split(10), strict=True))
    models = {"sure": Sure(4.0), "less": Sure(2.0)}
    tradeoff = done(Tradeoff(models, parts, texts[:2], rounds=6, task=next_token()))
    verdict = tradeoff.verdict("less")
    own, other = (
        float(nn.functional.cross_entropy(model(texts).flatten(0, 1), targets.flatten()))
        for model in models.values()
    )
    assert verdict.estimate.value == pytest.approx(other - own, abs=1e-6) and other < own
    assert (verdict.estimate.n, verdict.quantity.name, verdict.call) == (40, "loss", "better")
    assert "nats: lower" in str(verdict)
    assert tradeoff.reading("less", allowed=0.01).quality.not_worse
    assert tradeoff.verdict("sure", over="less").call == "worse"


# -- latency -------------------------------------------------------------------------------------


class Logged(Planted):
    """Writes its name and the first image's number into a log that all share."""

    def __init__(self, name: str, log: list[tuple[str, int]]) -> None:
        super().__init__()
        self.name, self.log = name, log

    def forward(self, x: Tensor) -> Tensor:
        self.log.append((self.name, int(x[0, 0])))
        return super().forward(x)


def logged(names: str, **other: int) -> tuple[list[list[tuple[str, int]]], Tradeoff]:
    """Return what was called in each piece of work, and the finished tradeoff."""
    log: list[tuple[str, int]] = []
    tradeoff, pieces = made({name: Logged(name, log) for name in names}, **other), []
    while not tradeoff.finished:
        tradeoff.advance()
        pieces.append(log[:])
        log.clear()
    return pieces, tradeoff


def test_a_piece_of_work_is_a_round_of_all_or_one_batch_of_one() -> None:
    pieces, _ = logged("abc", rounds=9)
    rounds = [piece for piece in pieces if piece[0][1] == -1]
    answers = [piece for piece in pieces if piece[0][1] != -1]
    assert len(rounds) == WARMUP_ROUNDS + 9
    order = itertools.cycle(
        ["cabc", "abca", "bcab", "acba", "bacb", "cbac"]
    )  # the first call is thrown away
    assert ["".join(name for name, _ in piece) for piece in rounds] == [next(order) for _ in rounds]
    assert [p for (p,) in answers] == list(itertools.product("abc", [0]))[:3] + [
        (name, first) for first in (32, 64, 96) for name in "abc"
    ]


@pytest.mark.parametrize("rounds", [1, 3, 9, 500])
def test_all_are_measured_a_little_before_one_is_measured_much(rounds: int) -> None:
    pieces, tradeoff = logged("abc", rounds=rounds, size=10)
    kinds = ["round" if piece[0][1] == -1 else "answers" for piece in pieces]
    first = WARMUP_ROUNDS + min(FIRST_ROUNDS, rounds)
    assert kinds[: first + 3] == ["round"] * first + ["answers"] * 3
    later = kinds[first + 3 :]
    assert later.count("answers") == 27 and later.count("round") == WARMUP_ROUNDS + rounds - first
    for place, kind in enumerate(later):  # evenly spread
        answers, others = (later[:place].count(each) for each in ("answers", "round"))
        due = later.count("round") * answers // 27
        assert kind == ("round" if others < due else "answers")
    assert tradeoff.timed == rounds


def test_with_a_single_batch_the_rounds_come_last() -> None:
    pieces, _ = logged("ab", rounds=6, size=100)
    kinds = ["round" if piece[0][1] == -1 else "answers" for piece in pieces]
    assert kinds == ["round"] * 5 + ["answers"] * 2 + ["round"] * 3


def test_latency_and_speed_are_those_of_the_rounds() -> None:
    variants = {"base": Planted(seconds=0.008), "small": Planted(seconds=0.001)}
    tradeoff = done(made(variants, size=100))
    latency = tradeoff.samples.value("small", LATENCY)
    speed = tradeoff.samples.against("small", on=LATENCY)
    assert latency is not None and 1.0 < latency.value < 8.0 and latency.n == 6
    assert speed is not None and 1.0 < speed.value < 8.0
    assert tradeoff.verdict("small", on="latency").call == "better"
    assert tradeoff.verdict("base", over="small", on="latency").call == "worse"
    assert tradeoff.front == ("small",)  # as accurate, and faster


def test_latency_is_that_of_the_first_seed() -> None:
    first, second = Planted(), Planted()
    done(made({"a": [first, second]}, size=100))
    assert [number for number, _, _ in first.seen].count(-1) == 2 * (WARMUP_ROUNDS + 6)
    assert [number for number, _, _ in second.seen].count(-1) == 0


def test_models_work_as_they_will_and_get_back_the_mode_they_were_in() -> None:
    threads: set[int] = set()

    class Mixed(Planted):
        def __init__(self) -> None:
            super().__init__()
            self.frozen, self.dropout = nn.BatchNorm1d(2).eval(), nn.Dropout()

        def forward(self, x: Tensor) -> Tensor:
            threads.add(torch.get_num_threads())
            assert not self.dropout.training
            return super().forward(x)

    model, before = Mixed(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        done(made({"a": model}))
        assert threads == {1} and torch.get_num_threads() == 2
        threads.clear()
        done(made({"a": model}, thread_count=2))
        assert threads == {2}
    finally:
        torch.set_num_threads(before)
    assert {(training, grad) for _, training, grad in model.seen} == {(False, False)}
    assert (model.training, model.frozen.training, model.dropout.training) == (True, False, True)
    assert torch.is_grad_enabled()


# -- the work ------------------------------------------------------------------------------------


def test_stopped_and_continued_gives_the_same_answers_as_in_one_go() -> None:
    whole, parts = done(made()), made()
    while not parts.finished:
        for _ in itertools.islice(parts, 3):
            pass
    for name in whole.variants:
        ours, theirs = (t.samples.scores(t.metric)[name][0] for t in (whole, parts))
        assert (ours == theirs).all() and len(ours) == 100
        assert parts.timed == 6
        assert gained(whole, name) == gained(parts, name)
    with pytest.raises(ValueError, match="the tradeoff is finished"):
        parts.advance()


def test_a_model_that_fails_loses_nothing_but_its_own_piece() -> None:
    class Fails(Planted):
        fail = False

        def forward(self, x: Tensor) -> Tensor:
            if self.fail:
                raise RuntimeError("out of memory")
            return super().forward(x)

    model = Fails(range(20))
    tradeoff = made({"base": Planted(range(10)), "fails": model})
    while not tradeoff.finished:
        model.fail = True
        try:
            tradeoff.advance()
        except ValueError as error:
            assert "RuntimeError: out of memory" in str(error)
            assert model.training
            model.fail = False
            tradeoff.advance()
    assert gained(tradeoff, "fails") == points(0, 10, 100)
    assert tradeoff.timed == 6


def test_the_batches_are_taken_once() -> None:
    class Shuffled:
        taken = 0

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            self.taken += 1
            return iter(random.Random(self.taken).sample(batches(100, 10), 10))

    test = Shuffled()
    variants = {"base": Planted(range(10)), "same": Planted(range(10))}
    assert gained(done(made(variants, test=test)), "same") == points(0, 0, 100)
    assert test.taken == 1


def test_progress_and_the_time_left() -> None:
    tradeoff = made()
    assert (tradeoff.progress, tradeoff.seconds_left, tradeoff.finished) == (0, None, False)
    progress = list(tradeoff)
    assert progress == [pytest.approx((i + 1) / 16) for i in range(16)]  # 2 + 6 rounds, 8 batches
    assert (tradeoff.seconds_left, tradeoff.finished) == (0, True)
