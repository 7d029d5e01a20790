"""Intervals against closed forms and known data; verdicts, tables and the scoreboard."""

import json
import math
import random
from pathlib import Path

import numpy
import pytest
import scipy.stats
from support.common import tiny_recipe

from labkit.compare import Race, Record, Verdict, scoreboard
from labkit.measure.statistics import (
    Estimate,
    mean_interval,
    mean_ratio,
    median_interval,
    paired_ratio,
)


def test_mean_interval_is_student_s() -> None:
    samples = [90.1, 91.3, 90.7, 92.0]
    ours = mean_interval(samples)
    reference = scipy.stats.ttest_1samp(samples, 0.0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((reference.low, reference.high))
    assert ours.value == pytest.approx(numpy.mean(samples))
    assert mean_interval([3.0]) == Estimate(3.0, -math.inf, math.inf, 1)


def test_mean_ratio_is_geometric_and_symmetric() -> None:
    there, back = mean_ratio([2.0, 8.0], [1.0, 1.0]), mean_ratio([1.0, 1.0], [2.0, 8.0])
    assert there.value == pytest.approx(4.0)
    assert there.low == pytest.approx(1 / back.high)


def test_median_interval_covers_the_true_median_about_95_times_in_100() -> None:
    generator = random.Random(0)
    covered = 0
    for _ in range(400):
        samples = [generator.lognormvariate(0.0, 0.5) for _ in range(60)]
        estimate = median_interval(samples, resamples=400)
        covered += estimate.low <= 1.0 <= estimate.high
    # Binomial(400, 0.95) lies between 362 and 394 all but once in ten thousand times; blocks of
    # neighbours cost a little coverage where there is nothing to catch.
    assert 355 <= covered <= 396


def test_noise_that_hits_both_arms_cancels_in_pairs() -> None:
    generator = random.Random(1)
    noise = [generator.choice([1.0, 1.0, 1.0, 4.0]) for _ in range(200)]
    estimate = paired_ratio([1.3 * x for x in noise], noise)
    assert estimate.value == pytest.approx(1.3)
    assert estimate.low == pytest.approx(1.3)
    assert estimate.high == pytest.approx(1.3)


def test_ratio_and_its_inverse_say_the_same() -> None:
    generator = random.Random(2)
    a, b = ([generator.uniform(1, 2) for _ in range(50)] for _ in "12")
    there, back = paired_ratio(a, b), paired_ratio(b, a)
    assert there.value == pytest.approx(1 / back.value)
    assert there.low == pytest.approx(1 / back.high, rel=1e-2)


def test_few_pairs_give_no_interval() -> None:
    assert paired_ratio([1.0] * 5, [2.0] * 5) == Estimate(0.5, 0.0, math.inf, 5)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [([], [], "not empty"), ([1.0], [1.0, 2.0], "differ in length"), ([1.0], [0.0], "positive")],
)
def test_bad_samples_are_refused(a: list, b: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_ratio(a, b)


@pytest.mark.parametrize(
    ("on", "estimate", "words"),
    [
        ("step time", Estimate(1.31, 1.24, 1.39, 40), "1.31x faster (95 % 1.24 to 1.39, n=40)"),
        ("step time", Estimate(0.71, 0.65, 0.8, 9), "0.71x: slower here (95 % 0.65 to 0.80, n=9)"),
        (
            "step time",
            Estimate(1.01, 1.001, 1.015, 9),
            "can't tell: 1.01x (95 % 1.00 to 1.01, n=9)",
        ),
        ("step time", Estimate(1.5, 0.9, 2.5, 9), "can't tell: 1.50x (95 % 0.90 to 2.50, n=9)"),
        (
            "time to target",
            Estimate(1.5, 0.0, math.inf, 1),
            "can't tell: 1.50x (too few observations for an interval, n=1)",
        ),
        ("peak memory", Estimate(1.9, 1.9, 1.9, 1), "1.90x smaller (exact, n=1)"),
        ("peak memory", Estimate(0.5, 0.5, 0.5, 1), "0.50x: larger here (exact, n=1)"),
        (
            "accuracy",
            Estimate(-0.5, -0.7, -0.3, 3),
            "-0.50 points: less accurate (95 % -0.70 to -0.30, n=3)",
        ),
        (
            "accuracy",
            Estimate(0.5, 0.05, 0.9, 3),
            "can't tell: +0.50 points (95 % +0.05 to +0.90, n=3)",
        ),
    ],
)
def test_the_words_of_a_verdict(on: str, estimate: Estimate, words: str) -> None:
    assert str(Verdict("b", "a", on, estimate)) == f"b over a, {on}: {words}"


def planted(ratio: float, seeds: int = 3, rounds: int = 30) -> Race:
    """A race whose records say that arm b is `ratio` times faster, with noise of 5 %."""
    generator = random.Random(0)
    race = Race({"a": tiny_recipe(), "b": tiny_recipe()}, seeds=seeds, target=0.8)
    for arm, scale in (("a", 1.0), ("b", 1 / ratio)):
        for seed in range(seeds):
            seconds = [scale * generator.uniform(0.095, 0.105) for _ in range(rounds)]
            record = Record(seed, list(range(rounds)), seconds, [1.0] * rounds)
            elapsed = record.elapsed
            record.evaluations = [
                (rounds // 2, elapsed[rounds // 2 - 1], 0.7),
                (rounds, elapsed[-1], 0.85 + 0.01 * seed + (0.02 if arm == "b" else 0)),
            ]
            race.records[arm].append(record)
    return race


def test_verdicts_of_a_planted_race() -> None:
    race = planted(1.5)
    step = race.verdict("b")
    assert step.call == "better"
    assert step.estimate.low < 1.5 < step.estimate.high
    assert step.estimate.n == 3 * 27  # three rounds of warm-up a seed are left out
    assert race.verdict("a", over="b").call == "worse"
    assert race.verdict("a", over="a").estimate.value == 1.0
    accuracy = race.verdict("b", on="accuracy").estimate
    assert (accuracy.value, accuracy.low) == pytest.approx((2.0, 2.0))
    assert race.verdict("b", on="time to target").estimate.value == pytest.approx(1.5, rel=0.05)


def test_a_training_that_was_stopped_half_way_is_not_averaged_with_whole_ones() -> None:
    whole, stopped = planted(1.5), planted(1.5)
    for records in stopped.records.values():
        del records[-1].evaluations[1:]  # the last seed stopped after its first evaluation, at 70 %
    for race, seeds in ((whole, 3), (stopped, 2)):
        assert race.verdict("b", on="accuracy").estimate.n == seeds
        assert race.table().rows[0][-1] == str(seeds)
    assert "70" not in stopped.table().rows[0][3]


def test_a_verdict_needs_arms_and_figures() -> None:
    race = planted(1.5)
    with pytest.raises(ValueError, match="no arm 'c' in this race; it has a, b"):
        race.verdict("c")
    with pytest.raises(ValueError, match="on must be one of step time"):
        race.verdict("b", on="speed")
    empty = Race({"a": tiny_recipe(), "b": tiny_recipe()}, seeds=1)
    with pytest.raises(ValueError, match="nothing measured yet"):
        empty.verdict("b")
    with pytest.raises(ValueError, match="no target"):
        empty.verdict("b", on="time to target")


def test_the_table_names_what_differs() -> None:
    race = Race({"fp32": tiny_recipe(), "bf16": tiny_recipe().but(precision="bf16")}, seeds=1)
    list(race)
    text = str(race.table())
    assert "Arms differ in: precision." in text
    assert "1 (baseline)" in text
    html = race.table()._repr_html_()
    assert html.count("<tr>") == 3


def test_a_row_goes_to_the_scoreboard_and_back(tmp_path: Path) -> None:
    race, file = planted(1.5), tmp_path / "a" / "scoreboard.jsonl"
    row = race.row("memory format", notebook="00", profile="smoke")
    scoreboard.append(row, file)
    scoreboard.append(race.row("again"), file)
    back = scoreboard.read([file])
    assert back[0] == json.loads(json.dumps(row))
    figure = back[0]["figures"]["b: speed over a"]
    assert figure["low"] < 1.5 < figure["high"]
    assert figure["n"] == 81
    assert "host" not in json.dumps(back[0]["facts"])

    other, merged = tmp_path / "other.jsonl", tmp_path / "merged.jsonl"
    other.write_text(file.read_text())  # the same rows from elsewhere count once
    scoreboard.append(race.row("third"), other)
    assert scoreboard.merge([file, other], merged) == 3
    assert {r["what"] for r in scoreboard.read([merged])} == {"memory format", "again", "third"}


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "scoreboard.jsonl"
    file.write_text('{"what": 1}\n')
    with pytest.raises(ValueError, match=r"scoreboard\.jsonl, line 1: not a scoreboard row"):
        scoreboard.read([file])
    file.write_text("{broken\n")
    with pytest.raises(ValueError, match="line 1: not JSON"):
        scoreboard.read([file])
    with pytest.raises(ValueError, match="entry lacks notebook"):
        scoreboard.append({"what": "x"}, file)
