"""Notebook 00: every check accepts the solution and refuses wrong answers; words fit results."""

import random

import pytest
from support.common import tiny_recipe

from labkit import Race
from labkit.compare import Record
from labkit.lessons import predict
from labkit.lessons.start_here import checks, words
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


def test_three_verdicts() -> None:
    assert checks.three_verdicts(["faster", "can't tell", "slower"]).right
    for wrong in (
        ["faster", "faster", "slower"],
        ["slower", "can't tell", "slower"],
        ["faster", "can't tell", "can't tell"],
        ["faster", "can't tell"],
        ["quick", "can't tell", "slower"],
        "faster",
        7,
        [None, None, None],
    ):
        assert checks.three_verdicts(wrong).right is False
    assert "interval 2" in str(checks.three_verdicts(["faster", "slower", "slower"]))


def test_ridge_point() -> None:
    assert checks.ridge_point(120 / 10, roof()).right
    for wrong in (12e9, 12e-9, 10.0, 1 / 12, 0, "12", float("inf")):
        assert checks.ridge_point(wrong, roof()).right is False


def test_fair_race() -> None:
    base = tiny_recipe().but(batch_size=8)
    large = base.but(data=_large().data)
    fair = Race({"128": large.but(batch_size=128), "256": large.but(batch_size=256)})
    assert checks.fair_race(fair).right
    for wrong in (
        Race({"one": large.but(batch_size=128)}),
        Race({"one": large, "two": large}),
        Race({"128": large.but(batch_size=128), "256": large.but(batch_size=256, seed=1)}),
        Race({"128": large.but(batch_size=128), "256": large.but(batch_size=64)}),
        Race({"a": large, "b": large.but(batch_size=128), "c": large.but(batch_size=256)}),
        {"128": large},
        256,
    ):
        assert checks.fair_race(wrong).right is False


def _large():
    from support.common import tiny_data

    return tiny_recipe(data=tiny_data(300))


def planted(ratio: float) -> Race:
    generator = random.Random(0)
    race = Race({"a": tiny_recipe(), "b": tiny_recipe()}, seeds=1)
    for arm, scale in (("a", 1.0), ("b", 1 / ratio)):
        seconds = [scale * generator.uniform(0.09, 0.11) for _ in range(40)]
        race.records[arm].append(Record(0, list(range(40)), seconds, [1.0] * 40))
    return race


@pytest.mark.parametrize(
    ("ratio", "phrase"),
    [(1.5, "choose **b**"), (0.6, "stay with **a**"), (1.0, "Measure longer")],
)
def test_the_meaning_of_a_verdict(ratio: float, phrase: str) -> None:
    prose = words.read_verdict(planted(ratio), "b", predict(1.0))
    assert phrase in prose
    assert "You predicted 1x" in prose


def test_reading_a_race_of_equals_one_after_the_other() -> None:
    race = planted(1.0)
    prose = words.read_sequential(race, "a", "b")
    ratios = race.ratios("b")
    assert f"{min(ratios):.2f}x to {max(ratios):.2f}x" in prose


def test_reading_the_standings() -> None:
    compute = standing(int(2e9), int(1e8), 0.05, roof())
    memory = standing(int(2e8), int(1e8), 0.05, roof())
    prose = words.read_standings({"slow": compute, "wide": memory})
    assert "**slow**: a step takes 50 ms and reaches 40 GFLOP/s, 33% of the 120" in prose
    assert prose.count("Its limit is computing.") == prose.count("Its limit is memory.") == 1
