"""Five calls, decided by where the interval lies, and the sentence that shows why."""

import math
import random
import re
from dataclasses import replace

import pytest

from labkit.compare import PEAK_MEMORY, STEP_TIME, TIME_TO_TARGET, Quantity, Verdict
from labkit.compare.tradeoff import Reading
from labkit.compare.verdict import CALLS
from labkit.measure import Estimate
from labkit.training.task import ACCURACY, LOSS

POINTS, NATS = Quantity.of(ACCURACY), Quantity.of(LOSS)
SAME = "no difference that matters"


def verdict(quantity: Quantity, low: float, high: float, value: float | None = None) -> Verdict:
    middle = value if value is not None else (low + high) / 2
    return Verdict("b", "a", quantity, Estimate(middle, low, high, 9))


@pytest.mark.parametrize(
    ("quantity", "low", "high", "call"),
    [
        (STEP_TIME, 1.021, 3.0, "better"),
        (STEP_TIME, 1.019, 3.0, "can't tell"),
        (STEP_TIME, 0.5, 0.979, "worse"),
        (STEP_TIME, 0.5, 0.9803, "worse"),  # 1 / 1.02 is 0.98039: no smaller than it is high
        (STEP_TIME, 0.5, 0.9805, "can't tell"),
        (STEP_TIME, 0.981, 1.02, SAME),
        (STEP_TIME, 0.97, 1.0, "can't tell"),
        (STEP_TIME, 1.0, 1.0, SAME),
        (STEP_TIME, 0.0, math.inf, "too few"),
        (POINTS, 0.11, 0.9, "better"),
        (POINTS, -0.9, -0.11, "worse"),
        (POINTS, -0.1, 0.1, SAME),
        (POINTS, -0.1, 0.11, "can't tell"),
        (POINTS, -math.inf, math.inf, "too few"),
        (NATS, -0.5, -0.02, "better"),  # of a loss less is better
        (NATS, 0.02, 0.5, "worse"),
        (NATS, -0.01, 0.01, SAME),
        (NATS, -0.5, 0.5, "can't tell"),
        (PEAK_MEMORY, 2.0, 2.0, "better"),
        (PEAK_MEMORY, 1.01, 1.01, SAME),
    ],
)
def test_the_call_is_where_the_whole_interval_lies(
    quantity: Quantity, low: float, high: float, call: str
) -> None:
    assert verdict(quantity, low, high).call == call


def test_what_is_better_from_one_side_is_worse_from_the_other() -> None:
    generator, opposite = random.Random(0), {"better": "worse", "worse": "better"}
    for _ in range(2000):
        low, high = sorted(generator.lognormvariate(0.0, 0.03) for _ in range(2))
        there, back = verdict(STEP_TIME, low, high), verdict(STEP_TIME, 1 / high, 1 / low)
        assert back.call == opposite.get(there.call, there.call)
        for quantity in (POINTS, NATS):
            there = verdict(quantity, low - 1, high - 1)
            back = verdict(quantity, 1 - high, 1 - low)
            assert back.call == opposite.get(there.call, there.call)


def test_every_verdict_has_one_of_five_calls_and_the_interval_alone_decides() -> None:
    generator, seen = random.Random(1), set()
    for _ in range(2000):
        low, high = sorted(generator.gauss(1.0, 0.03) for _ in range(2))
        one = verdict(STEP_TIME, low, high, low)
        assert one.call == verdict(STEP_TIME, low, high, high).call
        seen.add(one.call)
    assert seen | {"too few"} == set(CALLS)


def test_not_worse_asks_for_the_margin_on_one_side_only() -> None:
    for quantity, inside, outside in (
        (STEP_TIME, (0.981, 3.0), (0.979, 3.0)),
        (POINTS, (-0.1, 9.0), (-0.11, 9.0)),
        (NATS, (-9.0, 0.01), (-9.0, 0.011)),
    ):
        assert verdict(quantity, *inside).not_worse
        assert not verdict(quantity, *outside).not_worse
    assert not verdict(POINTS, -math.inf, math.inf).not_worse
    assert verdict(POINTS, -0.4, 0.2).within(0.5).not_worse
    assert verdict(POINTS, -0.4, 0.2).within(0.5).call == SAME
    with pytest.raises(ValueError, match="margin must be 0 or more, got -1"):
        verdict(POINTS, 0, 1).within(-1)


@pytest.mark.parametrize(
    ("quantity", "estimate", "words"),
    [
        (STEP_TIME, Estimate(1.31, 1.24, 1.39, 40), "1.31x faster (95 % 1.24 to 1.39, n=40)"),
        (STEP_TIME, Estimate(1.22, 1.22, 1.22, 291), "1.22x faster (95 % 1.22 to 1.22, n=291)"),
        (STEP_TIME, Estimate(0.71, 0.65, 0.8, 9), "0.71x: slower here (95 % 0.65 to 0.80, n=9)"),
        (
            STEP_TIME,
            Estimate(0.0213, 0.0207, 0.0219, 9),
            "0.0213x: slower here (95 % 0.0207 to 0.0219, n=9)",
        ),
        (
            STEP_TIME,
            Estimate(1.01, 1.001, 1.015, 9),
            "no difference that matters (margin 2 %): 1.01x (95 % 1.00 to 1.01, n=9)",
        ),
        (
            STEP_TIME,
            Estimate(1.5, 0.9, 2.5, 9),
            "can't tell (margin 2 %): 1.50x (95 % 0.90 to 2.50, n=9)",
        ),
        (
            STEP_TIME,  # with two decimals it would read "1.02 to 1.05": why is that better?
            Estimate(1.03, 1.0204, 1.0512, 9),
            "1.0300x faster (95 % 1.0204 to 1.0512, n=9)",
        ),
        (
            STEP_TIME,  # and this one "0.98 to 1.01", although 1/1.02 is 0.9804
            Estimate(1.0, 0.9806, 1.01, 9),
            "no difference that matters (margin 2 %): 1.000x (95 % 0.981 to 1.010, n=9)",
        ),
        (
            TIME_TO_TARGET,
            Estimate(1.5, 0.0, math.inf, 1),
            "too few to tell: 1.50x (no interval, n=1)",
        ),
        (PEAK_MEMORY, Estimate(1.9, 1.9, 1.9, 1), "1.90x smaller (exact, n=1)"),
        (PEAK_MEMORY, Estimate(0.5, 0.5, 0.5, 1), "0.50x: larger here (exact, n=1)"),
        (
            POINTS,
            Estimate(-0.5, -0.7, -0.3, 3),
            "-0.50 points: less accurate (95 % -0.70 to -0.30, n=3)",
        ),
        (
            POINTS,
            Estimate(0.5, 0.05, 0.9, 3),
            "can't tell (margin 0.1 points): +0.50 points (95 % +0.05 to +0.90, n=3)",
        ),
        (
            POINTS,
            Estimate(-0.001, -0.02, 0.02, 3),
            "no difference that matters (margin 0.1 points): "
            "+0.00 points (95 % -0.02 to +0.02, n=3)",
        ),
        (
            NATS,
            Estimate(-0.052, -0.07, -0.03, 5),
            "-0.052 nats: lower (95 % -0.070 to -0.030, n=5)",
        ),
        (
            NATS,
            Estimate(0.001, -0.004, 0.005, 5),
            "no difference that matters (margin 0.01 nats): "
            "+0.001 nats (95 % -0.004 to +0.005, n=5)",
        ),
    ],
)
def test_the_words_of_a_verdict(quantity: Quantity, estimate: Estimate, words: str) -> None:
    assert str(Verdict("b", "a", quantity, estimate)) == f"b over a, {quantity.name}: {words}"


def test_the_figures_that_are_printed_lead_to_the_call_that_is_printed() -> None:
    generator = random.Random(2)
    for quantity, near in ((STEP_TIME, (1.02, 1 / 1.02)), (POINTS, (0.1, -0.1)), (NATS, (0.01,))):
        for _ in range(1000):
            ends = [generator.choice(near) + generator.gauss(0.0, 1e-3) for _ in range(2)]
            made = verdict(quantity, min(ends), max(ends))
            found = re.search(r"95 % (\S+) to (\S+),", str(made))
            assert found is not None
            assert verdict(quantity, float(found[1]), float(found[2])).call == made.call


def test_a_quantity_is_refused_that_cannot_be_judged() -> None:
    with pytest.raises(ValueError, match="margin must be 0 or more, got nan"):
        replace(STEP_TIME, margin=math.nan)
    with pytest.raises(ValueError, match="kind must be one of 'ratio', 'difference', got 'sum'"):
        Quantity("a", "b", "sum")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("speed", "gained", "call"),
    [
        ((1.5, 2.5), (-0.3, 0.1), "cheaper and not worse"),
        ((1.5, 2.5), (-0.4, 0.1), "can't tell"),
        ((1.5, 2.5), (-0.4, -0.31), "cheaper but worse"),
        ((1.01, 2.5), (-0.3, 0.1), "can't tell"),
        ((0.5, 0.9), (-0.3, 0.1), "not cheaper"),
        ((0.99, 1.01), (-0.3, 0.1), "not cheaper"),
        ((0.0, math.inf), (-0.3, 0.1), "too few"),
        ((1.5, 2.5), (-math.inf, math.inf), "too few"),
    ],
)
def test_readings(speed: tuple[float, float], gained: tuple[float, float], call: str) -> None:
    quality = verdict(POINTS, *gained, value=-0.12).within(0.3)
    reading = Reading(verdict(STEP_TIME, *speed, value=2.0), quality)
    assert reading.call == call
    assert str(reading).startswith(f"b over a: {call}: 2.00x (")
    assert re.search(
        r"in speed, accuracy -0.12 points \(.*\), 0.3 points may be lost$", str(reading)
    )
