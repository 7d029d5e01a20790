"""What a tradeoff says: front, sizes, readings, table, scoreboard row, and what it refuses."""

from __future__ import annotations

import itertools
import json
import math
import random
from typing import Any

import pytest
from support.tradeoffs import Planted, batches, done, images, made
from torch import nn

from labkit.compare import Reading, Verdict
from labkit.compare.answers import matched_difference, wilson
from labkit.compare.tradeoff_report import unbeaten
from labkit.measure import Estimate


def test_the_front_is_what_brute_force_finds() -> None:
    generator = random.Random(0)
    for _ in range(300):
        names = range(generator.randint(1, 9))  # few values: many ties
        places = {str(i): (generator.randint(1, 4), generator.randint(1, 4)) for i in names}
        beaten = {
            one
            for (one, (time, right)), (other_time, other_right) in itertools.product(
                places.items(), places.values()
            )
            if other_time <= time
            and other_right >= right
            and (other_time, other_right) != (time, right)
        }
        front = unbeaten(places)
        assert set(front) == set(places) - beaten and len(front) == len(set(front))
        assert [places[name] for name in front] == sorted(places[name] for name in front)


def test_sizes_are_given_or_counted() -> None:
    variants = {"base": nn.Linear(2, 10), "small": nn.BatchNorm1d(2)}
    tradeoff = made(variants, sizes={"base": 1000})
    assert {name: p.bytes for name, p in tradeoff.points.items()} == {
        "base": 1000,
        "small": 4 * 4 * 2 + 8,  # weight, bias, mean, variance; the count of batches
    }


@pytest.mark.parametrize(
    ("speed", "lost", "call"),
    [
        ((1.5, 2.5), (-0.1, 0.3), "cheaper and not worse"),
        ((1.5, 2.5), (-0.1, 0.4), "can't tell"),
        ((1.5, 2.5), (0.31, 0.4), "cheaper but worse"),
        ((1.01, 2.5), (-0.1, 0.3), "can't tell"),
        ((0.5, 0.9), (-0.1, 0.3), "not cheaper"),
        ((1.5, 2.5), (-math.inf, math.inf), "can't tell"),
    ],
)
def test_readings(speed: tuple[float, float], lost: tuple[float, float], call: str) -> None:
    verdict = Verdict("small", "base", "latency", Estimate(2.0, *speed, 15))
    reading = Reading(verdict, Estimate(0.12, *lost, 3), allowed=0.3)
    assert reading.call == call
    assert str(reading).startswith(f"small over base: {call}: 2.00x (")
    assert str(reading).endswith(" points lost, 0.3 allowed") and ") in speed, 0.12 (" in str(
        reading
    )


def test_a_reading_is_of_the_same_figures_as_the_verdicts() -> None:
    tradeoff = done(made())
    reading = tradeoff.reading("small", allowed=5)
    gained, lost = tradeoff.verdict("small").estimate, tradeoff.points["small"].lost
    assert lost is not None
    assert (gained.value, gained.low, gained.high) == pytest.approx(
        (-lost.value, -lost.high, -lost.low)
    )
    assert reading.lost.high == pytest.approx(lost.high)
    assert reading.speed == tradeoff.verdict("small", on="latency")
    assert str(tradeoff.verdict("small")).startswith("small over base, accuracy: -10.00 points: le")


def test_the_table_says_what_its_figures_are() -> None:
    tradeoff = made(sizes={"small": 1_500_000})
    assert tradeoff.table().rows[1] == ("small", "–", "–", "–", "–", "1.50")
    table = done(tradeoff).table()
    assert table.headers == ("variant", "accuracy %", "points lost", "ms a batch", "speed", "MB")
    assert table.rows[0][:3] == ("base", f"{wilson(90, 100):.2f}", "0 (baseline)")
    assert table.rows[0][4] == "1 (baseline)"
    assert table.rows[1][2] == f"{matched_difference(15, 5, 100):.2f}"
    for words in ("100 test answers", "one model each", "Wilson", "6 rounds, 8 in a batch"):
        assert words in table.note
    assert f"On the front, by point estimates: {'; '.join(tradeoff.front)}." in table.note
    seeds = {name: [Planted(), Planted(range(3))] for name in "ab"}
    assert "mean of 2 seeds, paired by seed (Student's t)" in done(made(seeds)).table().note


def test_the_scoreboard_row_holds_every_figure() -> None:
    row = done(made()).row("two nets", notebook="14", profile="smoke")
    assert (row["what"], row["notebook"], row["profile"]) == ("two nets", "14", "smoke")
    assert {name: figure["unit"] for name, figure in row["figures"].items()} == {
        "base: accuracy": "%",
        "base: latency": "ms",
        "base: size": "MB",
        "small: accuracy": "%",
        "small: latency": "ms",
        "small: size": "MB",
        "small: points lost to base": "points",
        "small: speed over base": "x",
    }
    json.dumps(row, allow_nan=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"variants": [Planted()]}, "variants must be {name: model}, got list"),
        ({"variants": {"a": 3}}, "variants['a'] must be a module or several, got int"),
        ({"variants": {"a": [Planted(), 3]}}, "variants['a'] must be a module or several"),
        (
            {"test": 3},
            "test must be batches that can be gone through again, such as a list, got int",
        ),
        ({"test": iter(batches(4, 2))}, "gone through again, such as a list, got list_iterator"),
        ({"test": [images(3)]}, "test must hold pairs (inputs, labels), got Tensor"),
        ({"test": [(images(3), 1)]}, "test must hold pairs (inputs, labels), got tuple"),
        ({"example": batches(4, 2)}, "example must be a tensor of inputs, got list"),
    ],
)
def test_refuses_what_is_of_the_wrong_type(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError) as caught:
        made(**arguments)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"variants": {}}, "variants is empty"),
        ({"variants": {"a": []}}, "variants must have a model for each of the same seeds"),
        (
            {"variants": {"a": [Planted(), Planted()], "b": Planted()}},
            "variants must have a model for each of the same seeds, got {'a': 2, 'b': 1}",
        ),
        ({"test": []}, "test is empty"),
        ({"rounds": 0}, "rounds must be a whole number of at least 1, got 0"),
        ({"rounds": 2.0}, "rounds must be a whole number of at least 1, got 2.0"),
        ({"sizes": {"big": 3}}, "sizes has 'big', which is no variant; there are base, small"),
        ({"sizes": {"base": 0}}, r"sizes\['base'\] must be a whole number"),
    ],
)
def test_refuses_what_is_out_of_range(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        made(**arguments)


def test_refuses_questions_it_cannot_answer() -> None:
    tradeoff = made()
    with pytest.raises(ValueError, match="nothing measured yet for 'accuracy' of 'small'"):
        tradeoff.verdict("small")
    with pytest.raises(ValueError, match="nothing measured yet for 'latency' of 'small'"):
        tradeoff.verdict("small", on="latency")
    done(tradeoff)
    with pytest.raises(ValueError, match="no variant 'big' in this tradeoff; it has base, small"):
        tradeoff.verdict("big")
    with pytest.raises(ValueError, match="no variant 'big'"):
        tradeoff.reading("small", over="big")
    with pytest.raises(ValueError, match='on must be "accuracy" or "latency", got \'size\''):
        tradeoff.verdict("small", on="size")
    with pytest.raises(ValueError, match="allowed must be points of accuracy, 0 or more, got -1"):
        tradeoff.reading("small", allowed=-1)


def test_refuses_answers_that_do_not_fit_the_labels() -> None:
    flat = nn.Sequential(Planted(), nn.Flatten(0))
    words = r"variants\['flat'\] must answer with logits \(32, 'classes'\), .* shape \(\)"
    with pytest.raises(ValueError, match=words):
        done(made({"base": Planted(), "flat": flat}))


def test_a_name_that_fails_in_a_round_is_told() -> None:
    with pytest.raises(RuntimeError) as caught:
        done(made({"base": Planted(), "wide": nn.Linear(5, 10)}))
    assert caught.value.__notes__ == ["raised while timing 'wide'"]
