"""Notebook 00: every check accepts the solution and refuses wrong answers; words fit results."""

import itertools
from statistics import median

import pytest
from support.common import SILLY, refuses, tiny_recipe
from support.verdicts import each_call, planted

from labkit import Race
from labkit.compare.record import Record
from labkit.lessons import Prediction, sentence
from labkit.lessons.reading import FEW
from labkit.lessons.start_here import checks, measure, words
from labkit.measure import Ceiling, Estimate, standing


def roof() -> Ceiling:
    def rate(value: float) -> Estimate:
        return Estimate(value, value, value, 9)

    return Ceiling({"fp32": rate(100)}, {"fp32": rate(120)}, rate(10), threads=1, device="cpu")


def test_next_pixel() -> None:
    assert checks.next_pixel(16).right
    for wrong in (1, 14, 196, 3136, 0, -16, "16", (16,), None):
        assert not checks.next_pixel(wrong).right
    assert "same pixel" in str(checks.next_pixel(1))


RIGHT = ["faster", "can't tell", "slower", "no difference that matters", "can't tell"]


def test_five_verdicts() -> None:
    assert checks.five_verdicts(RIGHT).right
    assert checks.five_verdicts(("Faster", "can’t tell", "slower here", *RIGHT[3:])).right
    assert checks.five_verdicts([*RIGHT[:3], "no difference", "Cannot tell "]).right
    for place, word in itertools.product(range(5), checks.WORDS):
        answer = [*RIGHT[:place], word, *RIGHT[place + 1 :]]
        same = checks.WORDS[word] == checks.WORDS[RIGHT[place]]
        assert checks.five_verdicts(answer).right is same, answer
        assert same or f"interval {place + 1}" in checks.five_verdicts(answer).message
    refuses(checks.five_verdicts, [RIGHT[:4], ["quick", *RIGHT[1:]], "faster", [None] * 5, *SILLY])


def test_ridge_point() -> None:
    assert checks.ridge_point(120 / 10, roof()).right
    for wrong in (12e9, 12e-9, 10.0, 1 / 12, 0, "12", float("inf")):
        assert checks.ridge_point(wrong, roof()).right is False


def test_fair_race() -> None:
    base = tiny_recipe()
    bf16, fp16 = base.but(precision="bf16"), base.but(precision="fp16")
    assert checks.fair_race(Race({"fp32": base, "bf16": bf16})).right
    assert checks.fair_race(Race({"one": bf16, "other": base})).right
    for wrong in (
        Race({"one": base}),
        Race({"one": base, "two": base}),
        Race({"fp32": base, "bf16": bf16.but(seed=1)}),
        Race({"fp32": base, "fp16": fp16}),
        Race({"fp32": base, "bf16": bf16, "fp16": fp16}),
        {"fp32": base, "bf16": bf16},
    ):
        assert checks.fair_race(wrong).right is False
    refuses(checks.fair_race, SILLY)


def test_each_outcome_has_its_meaning() -> None:
    for sentences in (words.LAYOUT, words.ACCURACY, words.COPY):
        told = [sentence(verdict, sentences) for verdict in each_call().values()]
        assert len(set(told)) == 5
    assert "**b**" in sentence(planted("better"), words.LAYOUT)
    assert "**a**" in sentence(planted("worse"), words.LAYOUT)


def test_reading_a_race_of_equals_one_after_the_other() -> None:
    race = Race({"a": tiny_recipe(), "b": tiny_recipe()}, seeds=1)
    assert words.read_sequential(race, "a", "b") == FEW
    slower = [0.1 * (1 + number / 40) for number in range(40)]  # the machine gets slower and slower
    for arm in ("a", "b"):
        race.records[arm].append(Record(0, list(range(40)), slower, [1.0] * 40))
    early, late = median(slower[3:22]), median(slower[-19:])
    assert measure.first_one_then_the_other(race, "a", "b") == pytest.approx(early / late, rel=0.02)
    prose = words.read_sequential(race, "a", "b")
    assert "from 1.00x to 1.00x" in prose and "gives 0.7" in prose
    assert f"all rounds is {race.verdict('b').figures}" in prose


def test_the_layouts_are_read_by_time_and_by_accuracy() -> None:
    arms = {"contiguous": tiny_recipe(), "channels_last": tiny_recipe()}
    race = Race(arms, seeds=1)
    prose = words.read_layout(race, Prediction(1.0))
    for on in ("step time", "accuracy"):
        assert f"**{race.verdict('channels_last', on=on)}**" in prose
    assert FEW in prose and words.ACCURACY.few in prose and prose.count("You predicted") == 1


def test_reading_the_standings() -> None:
    compute = standing(int(2e9), int(1e8), 0.05, roof())
    memory = standing(int(2e8), int(1e8), 0.05, roof())
    cached = standing(int(2e8), int(1e8), 0.005, roof())  # twice as fast as memory allows
    prose = words.read_standings({"slow": compute, "wide": memory})
    assert "200% of the 20 under the roof" in words.read_standings({"cached": cached})
    assert "put it above" in prose and "the race decides" in prose
    assert (
        "**slow**: a step takes 50 ms and reaches 40 GFLOP/s, 33% of the 120 under the roof"
        in prose
    )
    assert prose.count("arithmetic sets the limit") == prose.count("memory sets the limit") == 1
