"""A guess is judged as a comparison is: by the whole interval and the margin."""

from math import inf

import pytest

from labkit.compare import STEP_TIME, Quantity, Verdict
from labkit.compare.guess import fate_of
from labkit.measure import Estimate
from labkit.training.task import ACCURACY, LOSS


@pytest.mark.parametrize(
    ("guess", "low", "high", "fate"),
    [
        (1.0, 0.985, 1.015, "right"),
        (1.0, 1.1, 1.2, "too low"),
        (1.0, 0.8, 0.9, "too high"),
        (1.0, 1.01, 1.2, "can't tell"),
        (0.5, 0.495, 0.505, "right"),  # 1 % of it; a difference of 0.01 from 1 would be as much
        (0.5, 0.52, 0.53, "too low"),
        (0.0, 0.1, 0.2, "too low"),  # no ratio is 0
        (1.0, 0.0, inf, "too few"),
        (0.0, 0.0, inf, "too few"),
    ],
)
def test_of_a_ratio(guess: float, low: float, high: float, fate: str) -> None:
    estimate = Estimate((low * min(high, 2)) ** 0.5, low, high, 9)
    assert fate_of(guess, Verdict("b", "a", STEP_TIME, estimate)) == fate


@pytest.mark.parametrize("metric", [ACCURACY, LOSS])
@pytest.mark.parametrize(
    ("low", "high", "fate"),
    [
        (2.0, 4.0, "too low"),
        (-4.0, 0.0, "too high"),
        (0.999, 1.001, "right"),
        (0.0, 2.0, "can't tell"),
        (-inf, inf, "too few"),
    ],
)
def test_of_a_difference_it_is_the_number_that_counts_not_its_worth(metric, low, high, fate):
    verdict = Verdict("b", "a", Quantity.of(metric), Estimate(1.0, low, high, 3))
    assert fate_of(1.0, verdict) == fate


def test_no_difference_as_a_guess_is_right_where_the_verdict_finds_none() -> None:
    fates = {
        "better": "too low",
        "worse": "too high",
        "no difference that matters": "right",
        "can't tell": "can't tell",
    }
    for low, high in ((1.03, 1.1), (0.9, 0.97), (0.99, 1.01), (0.99, 1.1)):
        verdict = Verdict("b", "a", STEP_TIME, Estimate(1.0, low, high, 9))
        assert fate_of(1.0, verdict) == fates[verdict.call]
