"""What a tradeoff says: sizes, readings, table, scoreboard row, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from support.tradeoffs import Planted, batches, done, made
from torch import nn

from labkit.compare.intervals import matched_difference, scaled, share


def test_a_reading_is_of_the_same_figures_as_the_verdicts() -> None:
    tradeoff = done(made())
    reading = tradeoff.reading("small", allowed=5)
    assert reading.quality.estimate == tradeoff.verdict("small").estimate
    assert reading.quality.quantity.margin == 5
    assert reading.speed == tradeoff.verdict("small", on="latency")
    assert str(tradeoff.verdict("small")).startswith("small over base, accuracy: -10.00 points: le")


def test_the_table_says_what_its_figures_are() -> None:
    tradeoff = made(sizes={"small": 1_500_000})
    assert tradeoff.table().rows[1] == ("small", "–", "–", "–", "–", "1.50")
    table = done(tradeoff).table()
    assert table.headers == (
        "arm", "accuracy, %", "difference, points", "ms a batch", "speed", "MB"
    )  # fmt: skip
    assert table.rows[0][:3] == ("base", f"{scaled(share(90, 100), 100):.2f}", "0 (baseline)")
    assert table.rows[0][4] == "1 (baseline)"
    assert table.rows[1][2] == f"{scaled(matched_difference(5, 15, 100), 100):+.2f}"
    for words in ("Accuracy: 100 examples", "compared one by one", "median of 6 rounds"):
        assert words in table.note
    assert f"On the front, by point estimates: {'; '.join(tradeoff.front)}." in table.note
    seeds = {name: [Planted(), Planted(range(3))] for name in "ab"}
    assert "mean of 2 seeds, compared seed by seed" in done(made(seeds)).table().note


def test_the_scoreboard_gets_every_figure() -> None:
    figures = done(made(sizes={"base": 2, "small": 1})).samples.figures()
    assert {name: unit for name, (_, unit) in figures.items()} == {
        "base: accuracy": "%",
        "base: latency": "ms",
        "base: size": "MB",
        "small: accuracy": "%",
        "small: latency": "ms",
        "small: size": "MB",
        "small: accuracy over base": "points",
        "small: speed over base": "x",
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"variants": [Planted()]}, "variants must be of type Mapping[str, Module | Sequence["),
        ({"variants": {"a": 3}}, "variants must be of type Mapping[str, Module | Sequence["),
        ({"variants": {"a": [Planted(), 3]}}, "variants['a'] must be a module or several"),
        ({"test": 3}, "test must be of type Iterable[Any], got 3"),
        ({"example": batches(4, 2)}, "example must be of type Tensor, got [(tensor"),
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
        ({"sizes": {"big": 3}}, "there is no arm 'big'; there are base, small"),
        ({"sizes": {"base": 0}}, "value of 'size' must be a positive number, got 0"),
    ],
)
def test_refuses_what_is_out_of_range(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        made(**arguments)


def test_refuses_questions_it_cannot_answer() -> None:
    tradeoff = made()
    for quantity in ("accuracy", "latency"):
        assert tradeoff.verdict("small", on=quantity).call == "too few"
    assert tradeoff.reading("small", allowed=0.3).call == "too few"
    done(tradeoff)
    with pytest.raises(ValueError, match="there is no arm 'big'; there are base, small"):
        tradeoff.verdict("big")
    with pytest.raises(ValueError, match="no arm 'big'"):
        tradeoff.reading("small", allowed=0.3, over="big")
    with pytest.raises(ValueError, match="on must be one of accuracy, latency, got 'speed'"):
        tradeoff.verdict("small", on="speed")
    with pytest.raises(ValueError, match="allowed must be points of accuracy, 0 or more, got -1"):
        tradeoff.reading("small", allowed=-1)


def test_refuses_answers_that_do_not_fit_the_labels() -> None:
    flat = nn.Sequential(Planted(), nn.Flatten(0))
    words = r"variants\['flat'\]: a model that classifies must .* got \(float32 \(320,\)"
    with pytest.raises(ValueError, match=words):
        done(made({"base": Planted(), "flat": flat}))


def test_a_name_that_fails_in_a_round_is_told() -> None:
    expected = r"float32 \(8, 2\): RuntimeError: mat1 and mat2 .*; raised while timing 'wide'"
    with pytest.raises(ValueError, match=expected):
        done(made({"base": Planted(), "wide": nn.Linear(5, 10)}))
