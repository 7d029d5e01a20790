"""Words for results: one sentence for each call, and predictions judged as comparisons are."""

from dataclasses import replace
from math import inf

import pytest
from support.verdicts import each_call, planted

from labkit.compare import STEP_TIME, Quantity, Verdict
from labkit.compare.verdict import CALLS
from labkit.lessons import Sentences, predict, read, read_all, sentence
from labkit.lessons.reading import FEW, UNSURE
from labkit.measure import Estimate
from labkit.training.task import ACCURACY, LOSS

TOLD = Sentences(better="B", worse="W", same="S", unsure="U", few="F")


@pytest.mark.parametrize("quantity", [STEP_TIME, Quantity.of(ACCURACY), Quantity.of(LOSS)])
def test_the_call_alone_chooses_the_sentence(quantity: Quantity) -> None:
    told = [sentence(verdict, TOLD) for verdict in each_call(quantity).values()]
    assert told == ["B", "W", "S", "U", "F"]
    # The figures are the same; another margin makes it another call, and so another sentence.
    verdict = planted("better", quantity)
    assert sentence(verdict.within(1000 * quantity.margin), TOLD) == "S"


def test_sentences_hold_the_figures() -> None:
    told = replace(
        TOLD,
        better="{candidate} over {baseline}: {value:.2f} ({low:.2f} to {high:.2f}, {n}), {margin}, "
        "{measured}, {own}",
    )
    assert sentence(planted("better"), told, own=7) == (
        "b over a: 1.20 (1.18 to 1.22, 9), 2 %, 1.20x (95 % 1.18 to 1.22, n=9), 7"
    )
    with pytest.raises(KeyError, match="own"):
        sentence(planted("better"), told)


def test_reading_is_the_verdict_then_what_it_means_then_the_prediction() -> None:
    verdict = planted("worse")
    assert read(verdict, TOLD) == f"**{verdict}**\n\nW"
    assert read(verdict, TOLD, predict(2)) == f"**{verdict}**\n\nW\n\n{predict(2).against(verdict)}"


def test_what_no_lesson_need_say_itself_has_a_default() -> None:
    plain = Sentences("", "", "")
    assert sentence(planted("can't tell"), plain) == UNSURE
    assert sentence(planted("too few"), plain) == FEW


def test_many_verdicts_are_told_by_call() -> None:
    verdicts = {name: planted("better", candidate=name) for name in "ac"}
    verdicts["x"] = planted("can't tell", candidate="x")
    said = read_all(verdicts, replace(TOLD, better="{names} {own}"), own="won")
    lines = [f"- **{name}**: {verdict}" for name, verdict in verdicts.items()]
    assert said.split("\n") == [*lines, "", "**a, c**: a, c won", "", "**x**: U"]


# ---- predictions


@pytest.mark.parametrize(
    ("guess", "low", "high", "told"),
    [
        (1.0, 0.982, 0.991, "As good as right: the difference is below 2 %."),
        (2.0, 0.9, 1.1, "too high."),
        (0.5, 0.9, 1.1, "too low."),
        (0.0, 0.9, 1.1, "You were 100% too low."),
        (1.0, 0.9, 1.1, "this measurement can't tell the two apart"),
        (1.0, 0.0, inf, "too few times"),
        (-1.0, 0.0, inf, "too few times"),
    ],
)
def test_a_prediction_is_judged_with_the_margin(
    guess: float, low: float, high: float, told: str
) -> None:
    verdict = Verdict("b", "a", STEP_TIME, Estimate(1.0, low, high, 9))
    said = predict(guess).against(verdict)
    assert told in said and f"You predicted {guess:.3g}x; measured: {verdict.figures}." in said


@pytest.mark.parametrize("metric", [ACCURACY, LOSS])
def test_high_and_low_are_those_of_the_number_not_of_its_worth(metric) -> None:
    verdict = Verdict("b", "a", Quantity.of(metric), Estimate(1.0, 0.8, 1.2, 3))
    said = predict(5, " %").against(verdict)
    assert f"You predicted 5 {metric.difference_unit}; measured: +1.0" in said
    assert said.endswith(
        f"You were 4.{'0' if metric is ACCURACY else '00'} {metric.difference_unit} too high."
    )
    assert predict(0, " %").against(verdict).endswith("too low.")


def test_a_prediction_is_never_judged_otherwise_than_the_verdict() -> None:
    """Who predicts no difference is right where the verdict finds none, and wrong where it does."""
    fates = ["too low", "too high", "As good as right", "can't tell", "too few"]
    for verdict, fate in zip(each_call().values(), fates, strict=True):
        assert fate in predict(1.0).against(verdict)
    assert list(each_call()) == list(CALLS)


def test_a_share_is_missed_by_points() -> None:
    said = predict(50, " %").against(Estimate(61.4, 61.2, 61.6, 9))
    assert (
        said == "You predicted 50 %; measured: 61.4 (61.2 to 61.6) %. You were 11.4 points too low."
    )
    assert "As good as right" in predict(61, " %").against(Estimate(61.4, 61.2, 61.6, 9))
    assert "1.4x (1.3 to 1.6)" in predict(1.4).against(Estimate(1.4, 1.3, 1.6, 9))
