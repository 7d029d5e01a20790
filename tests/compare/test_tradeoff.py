"""Tradeoffs of planted models, whose answers are known: accuracies, latencies, order of work."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest
import torch
from support.tradeoffs import Planted, batches, done, made
from torch import Tensor, nn

from labkit.compare import Tradeoff
from labkit.compare.answers import matched_difference, wilson
from labkit.compare.tradeoff import FIRST_ROUNDS, WARMUP_ROUNDS
from labkit.measure import Estimate, median_interval, paired_ratio
from labkit.measure.statistics import mean_interval

# -- accuracy ------------------------------------------------------------------------------------


def test_one_model_each_is_paired_image_by_image() -> None:
    points = done(made()).points
    base, small = points["base"], points["small"]
    assert base.accuracy == wilson(90, 100) and small.accuracy == wilson(80, 100)
    assert (base.lost, base.seeds) == (Estimate(0.0, 0.0, 0.0, 100), 1)
    assert small.lost == matched_difference(15, 5, 100) and small.lost.value == 10
    right = made().right
    assert all(not batches for seeds in right.values() for batches in seeds)


def test_seeds_are_paired_in_their_order() -> None:
    wrong = {"base": (10, 20, 30), "small": (12, 23, 31)}  # mispaired they would lie far apart
    variants = {name: [Planted(range(n)) for n in numbers] for name, numbers in wrong.items()}
    tradeoff = done(made(variants))
    small = tradeoff.points["small"]
    assert small.accuracy is not None and small.lost is not None
    for estimate, samples in ((small.accuracy, [88, 77, 69]), (small.lost, [2, 3, 1])):
        expected = mean_interval(samples)
        for field in ("value", "low", "high", "n"):
            assert getattr(estimate, field) == pytest.approx(getattr(expected, field))
    assert tradeoff.points["base"].lost == Estimate(0.0, 0.0, 0.0, 3)
    assert tradeoff.verdict("small").estimate.value == pytest.approx(-2)


def test_half_way_all_are_compared_on_the_batches_that_all_have_answered() -> None:
    variants = {"base": [Planted(), Planted()], "small": [Planted(range(8)), Planted(range(4))]}
    tradeoff = made(variants, count=40, size=10)
    for _ in tradeoff:
        lengths = [len(seed) for seeds in tradeoff.right.values() for seed in seeds]
        assert max(lengths) - min(lengths) <= 1
        seen = 10 * min(lengths)
        for name, wrong in (("base", (0, 0)), ("small", (8, 4))):
            accuracy = tradeoff.points[name].accuracy
            if not seen:
                assert accuracy is None
                continue
            expected = 100 - 100 * sum(min(number, seen) for number in wrong) / 2 / seen
            assert accuracy is not None and accuracy.value == pytest.approx(expected)


def test_answers_of_every_shape_count() -> None:
    class EveryToken(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return nn.functional.one_hot(tokens, 5).float()

    tokens = torch.arange(12).reshape(3, 4) % 5
    labels = tokens.clone()
    labels[0] = 4 - labels[0]  # right only where 4 - x == x
    tradeoff = done(Tradeoff({"a": EveryToken()}, [(tokens, labels)], tokens, rounds=1))
    assert tradeoff.points["a"].accuracy == wilson(9, 12)


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
    assert len(tradeoff.milliseconds("a")) == rounds


def test_with_a_single_batch_the_rounds_come_last() -> None:
    pieces, _ = logged("ab", rounds=6, size=100)
    kinds = ["round" if piece[0][1] == -1 else "answers" for piece in pieces]
    assert kinds == ["round"] * 5 + ["answers"] * 2 + ["round"] * 3


def test_latency_and_speed_are_those_of_the_rounds() -> None:
    variants = {"base": Planted(seconds=0.008), "small": Planted(seconds=0.001)}
    tradeoff = done(made(variants, size=100))
    slow, fast = (tradeoff.milliseconds(name) for name in variants)
    point = tradeoff.points["small"]
    assert (point.latency, point.speed) == (median_interval(fast), paired_ratio(slow, fast))
    assert tradeoff.points["base"].speed == Estimate(1.0, 1.0, 1.0, 6)
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
        assert threads == {2} and torch.get_num_threads() == 2
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
        (expected,), (got,) = whole.right[name], parts.right[name]
        assert torch.equal(torch.cat(expected), torch.cat(got))
        assert len(parts.milliseconds(name)) == 6
        assert whole.points[name].lost == parts.points[name].lost
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
        except RuntimeError:
            assert model.training
            model.fail = False
            tradeoff.advance()
    assert tradeoff.points["fails"].lost == matched_difference(10, 0, 100)
    assert len(tradeoff.milliseconds("base")) == len(tradeoff.milliseconds("fails")) == 6


def test_the_batches_are_taken_once() -> None:
    class Shuffled:
        taken = 0

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            self.taken += 1
            return iter(random.Random(self.taken).sample(batches(100, 10), 10))

    test = Shuffled()
    variants = {"base": Planted(range(10)), "same": Planted(range(10))}
    assert done(made(variants, test=test)).points["same"].lost == matched_difference(0, 0, 100)
    assert test.taken == 1


def test_progress_and_the_time_left() -> None:
    tradeoff = made()
    assert (tradeoff.progress, tradeoff.seconds_left, tradeoff.finished) == (0, None, False)
    progress = list(tradeoff)
    assert progress == [pytest.approx((i + 1) / 16) for i in range(16)]  # 2 + 6 rounds, 8 batches
    assert (tradeoff.seconds_left, tradeoff.finished) == (0, True)
