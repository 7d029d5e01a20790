"""What samples say: what is paired with what, what is left out, tables, the scoreboard."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace

import numpy
import pytest
import torch

from labkit.compare import (
    LATENCY,
    PEAK_MEMORY,
    SIZE,
    STEP_TIME,
    TIME_TO_TARGET,
    Quantity,
    Samples,
)
from labkit.compare.intervals import matched_difference, scaled, score_difference
from labkit.compare.pairs import balanced
from labkit.compare.record import Record, samples_of
from labkit.measure import Estimate, Timing, median_interval, order_of_round, paired_ratio
from labkit.measure.statistics import FEWEST_PAIRS, mean_interval, mean_ratio
from labkit.training.task import ACCURACY, LOSS

POINTS, NATS = Quantity.of(ACCURACY), Quantity.of(LOSS)


def noisy(scale: float, rounds: int = 30, seed: int = 0) -> list[float]:
    generator = random.Random(seed)
    return [scale * generator.uniform(0.095, 0.105) for _ in range(rounds)]


# -- times ---------------------------------------------------------------------------------------


def test_times_are_compared_round_by_round() -> None:
    slow, fast = noisy(1.5), noisy(1.0, seed=1)
    samples = Samples.of_timings({"a": Timing("a", tuple(slow)), "b": fast}, LATENCY)
    assert samples.against("b") == paired_ratio(slow, fast)
    assert samples.ratios("b") == [s / f for s, f in zip(slow, fast, strict=True)]
    assert samples.value("a") == scaled(median_interval(slow), 1e3)
    assert samples.verdict("b").call == "better"
    assert samples.verdict("a", over="b").call == "worse"
    assert samples.verdict("a", "a").call == "no difference that matters"


def test_of_a_rate_more_is_better() -> None:
    rate = Quantity("rate", "tokens/s", better="more", worse="fewer", higher_is_better=True)
    samples = Samples("ab", (rate,))
    for number in range(8):
        samples.add("a", rate, 100.0, round=number)
        samples.add("b", rate, 150.0, round=number)
    found = samples.verdict("b")
    assert (found.call, found.estimate.value) == ("better", pytest.approx(1.5))
    assert samples.ratios("b") == [1.5] * 8


def test_only_rounds_that_both_took_part_in_are_pairs() -> None:
    samples = Samples("ab", (STEP_TIME,))
    for number in range(20):
        samples.add("a", STEP_TIME, 0.2, round=number)
        if number % 2:
            samples.add("b", STEP_TIME, 0.1, round=number)
    found = samples.against("b")
    assert found is not None and (found.value, found.n) == (pytest.approx(2), 10)


@pytest.mark.parametrize("rounds", range(7, 60))
def test_who_comes_first_favours_nobody_however_many_rounds_there_are(rounds: int) -> None:
    """The first of a round takes 6 % longer, which was seen where kernels had to be rebuilt."""
    generator = random.Random(rounds)
    samples = Samples("ab", (STEP_TIME,))
    for number in range(3, 3 + rounds):
        first = order_of_round("ab", number)[0]
        for arm in "ab":
            seconds = generator.uniform(0.995, 1.005) * (1.06 if arm == first else 1.0)
            samples.add(arm, STEP_TIME, seconds, round=number)
    found = samples.against("b")
    assert found is not None and found.value == pytest.approx(1.0, abs=0.01)
    assert found.n >= rounds - 3


@pytest.mark.parametrize("rounds", [12, 23, 50])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_of_every_seed_the_longest_balanced_stretch_counts(count: int, rounds: int) -> None:
    arms = "abcde"[:count]
    keys = [(seed, number) for seed in (0, 1) for number in range(3, 3 + rounds)]
    for one, other in itertools.combinations(arms, 2):
        kept = balanced(keys, arms, one, other)
        leads = [order_of_round(arms, n).index(one) < order_of_round(arms, n).index(other)
                 for _, n in kept]  # fmt: skip
        assert 2 * sum(leads) == len(leads) >= len(keys) - 2 * 2 * count
        for seed in (0, 1):
            numbers = [n for s, n in kept if s == seed]
            assert numbers == list(range(numbers[0], numbers[-1] + 1))


def test_nothing_is_left_out_where_too_little_would_stay() -> None:
    few = [(0, number) for number in range(FEWEST_PAIRS + 1)]
    assert balanced(few[:5], "ab", "a", "b") == few[:5]
    always_first = [(0, number) for number in range(0, 80, 4)]
    assert balanced(always_first, "ab", "a", "b") == always_first


# -- one value a training, and counted values ------------------------------------------------------


def test_one_value_a_training_is_compared_seed_by_seed() -> None:
    times = {"a": (2.0, 3.0, 4.0), "b": (1.0, 1.6, 2.0)}
    samples = Samples("ab", (TIME_TO_TARGET,))
    for arm, values in times.items():
        for seed, seconds in enumerate(values):
            samples.add(arm, TIME_TO_TARGET, seconds, seed=seed)
    assert samples.against("b") == mean_ratio(*times.values())
    assert samples.value("b") == mean_interval(times["b"])
    samples.add("b", TIME_TO_TARGET, math.inf, seed=3)
    samples.add("a", TIME_TO_TARGET, 5.0, seed=3)
    assert samples.against("b") is None  # three that did must not speak for the one that did not
    assert [row[1] for row in samples.table().rows] == ["3.50", "1.53 (3 of 4 seeds)"]


def test_an_arm_that_never_got_there_says_so() -> None:
    samples = Samples("abc", (TIME_TO_TARGET,))
    samples.add("a", TIME_TO_TARGET, 3.0)
    samples.add("b", TIME_TO_TARGET, math.inf)
    assert [row[1] for row in samples.table().rows] == ["3.00", "not reached", "–"]
    verdict = samples.verdict("b")
    assert str(verdict) == "b over a, time to target: too few to tell: nothing measured (n=0)"


def test_what_is_counted_is_exact() -> None:
    samples = Samples("ab", (PEAK_MEMORY, SIZE))
    for arm, count in (("a", 3 * 2**20), ("b", 2**20)):
        samples.add(arm, PEAK_MEMORY, count)
        samples.add(arm, SIZE, count)
    assert str(samples.verdict("b")) == "b over a, peak memory: 3.00x smaller (exact, n=1)"
    assert samples.value("a", "peak memory") == Estimate(3.0, 3.0, 3.0, 1)
    assert samples.table().rows == (("a", "3.00", "3.15"), ("b", "1.00", "1.05"))
    size = replace(SIZE, versus="times smaller")
    compared = Samples("ab", (size,))
    compared.add("a", size, 3)
    compared.add("b", size, 2)
    with pytest.raises(ValueError, match="quantity 'size' is another one than was measured before"):
        compared.add("b", SIZE, 2)
    assert [row[-1] for row in compared.table().rows] == ["1 (baseline)", "1.50x"]


# -- scores --------------------------------------------------------------------------------------


def test_one_seed_is_compared_example_by_example() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = ((torch.rand(200, generator=generator) < p).float() for p in (0.8, 0.9))
    samples = Samples("ab", (POINTS, NATS))
    samples.add_scores("a", POINTS, a)
    samples.add_scores("b", POINTS, b)
    only_b, only_a = int(((b == 1) & (a == 0)).sum()), int(((a == 1) & (b == 0)).sum())
    assert samples.against("b") == scaled(matched_difference(only_b, only_a, 200), 100)
    losses = torch.rand(2, 200, generator=generator).double()
    for arm, scores in zip("ab", losses, strict=True):
        samples.add_scores(arm, NATS, scores)
    expected = score_difference([losses[0].numpy()], [losses[1].numpy()])
    assert samples.against("b", on=NATS) == expected
    assert (samples.value("b", NATS).value, expected.value) == (  # type: ignore[union-attr]
        pytest.approx(float(losses[1].mean())),
        pytest.approx(float((losses[1] - losses[0]).mean())),
    )


def test_several_seeds_are_compared_seed_by_seed() -> None:
    samples = Samples("ab", (NATS,))
    means = {"a": (2.0, 3.0, 4.0), "b": (1.9, 2.7, 3.8)}
    for arm, of_arm in means.items():
        for seed, mean in enumerate(of_arm):
            samples.add_scores(arm, NATS, [mean - 0.5, mean + 0.5], seed=seed)
    found, expected = samples.against("b"), mean_interval([-0.1, -0.3, -0.2])
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    assert "compared seed by seed (Student's t)" in samples.table().note


def test_all_are_compared_on_the_examples_that_all_have_answered() -> None:
    samples = Samples("ab", (POINTS,))
    samples.add_scores("a", POINTS, [1, 1, 0, 0])
    assert samples.against("b") is None and samples.value("b") is None
    samples.add_scores("b", POINTS, [1, 0, 0, 0])
    samples.add_scores("a", POINTS, [0, 0, 0, 0])  # a batch ahead
    assert samples.against("b") == scaled(matched_difference(0, 1, 4), 100)
    assert samples.value("a").value == 50  # type: ignore[union-attr]
    samples.add_scores("b", POINTS, [1, 1, 1, 1])
    assert samples.against("b") == scaled(matched_difference(4, 1, 8), 100)


def test_a_training_that_was_stopped_half_way_is_not_averaged_with_whole_ones() -> None:
    records = {arm: [Record(seed) for seed in range(3)] for arm in "ab"}
    for arm, seed, evaluation in itertools.product("ab", range(3), range(1, 5)):
        if seed < 2 or evaluation == 1:  # the last seed stopped after its first evaluation
            right = 10 if evaluation == 1 else 90 + seed + (arm == "b")
            records[arm][seed].evaluate((torch.arange(100) < right).float())
    samples = samples_of(records, POINTS, None)
    value, gained = samples.value("b", POINTS), samples.against("b", on=POINTS)
    assert value is not None and (value.value, value.n) == (pytest.approx(91.5), 2)
    assert gained is not None and (gained.value, gained.n) == (pytest.approx(1.0), 2)


def test_an_interval_never_leaves_what_the_quantity_can_be() -> None:
    generator = numpy.random.default_rng(0)
    for seeds, quantity in itertools.product((1, 2, 3, 4), (POINTS, NATS)):
        for _ in range(50):
            samples = Samples("ab", (quantity,))
            for arm, seed in itertools.product("ab", range(seeds)):
                rate = generator.uniform(0.0, 1.0)
                scores = (generator.uniform(size=20) < rate).astype(float)
                samples.add_scores(arm, quantity, scores.tolist(), seed=seed)
            value, gained = samples.value("b"), samples.against("b")
            assert value is not None and gained is not None
            span = quantity.high - quantity.low
            for found, low, high in ((value, quantity.low, quantity.high), (gained, -span, span)):
                inside = low <= found.low <= found.value <= found.high <= high
                assert inside or math.isinf(found.high)


def test_two_seeds_far_apart_give_no_interval_and_none_is_printed() -> None:
    samples = Samples("ab", (POINTS,))
    for arm, rights in (("a", (10, 90)), ("b", (80, 30))):
        for seed, right in enumerate(rights):
            samples.add_scores(arm, POINTS, [1.0] * right + [0.0] * (100 - right), seed=seed)
    found = samples.verdict("b")
    assert found.call == "too few"
    assert str(found) == "b over a, accuracy: too few to tell: +5.00 points (no interval, n=2)"
    assert samples.table().rows[1][1:] == ("55.00 (n=2)", "+5.00 (n=2)")
