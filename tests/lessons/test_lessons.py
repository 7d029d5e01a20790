"""What the notebooks share: profiles, minutes, predictions, feedback."""

from pathlib import Path

import pytest
from support.common import tiny_recipe

from labkit.compare import scoreboard
from labkit.lessons import Prose, exercise, lesson, open_lesson, predict
from labkit.lessons.check import wrong_number
from labkit.measure.statistics import Estimate

STEPS = {"smoke": 60, "quick": 600, "full": 6000}


@pytest.fixture
def quick_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(lesson, "_reference_step", lambda: 0.5)
    monkeypatch.setenv("LABKIT_RESULTS", str(tmp_path))
    monkeypatch.delenv("LABKIT_PROFILE", raising=False)
    return tmp_path


def test_the_profile_comes_from_the_cell_then_the_environment_then_quick(
    quick_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_lesson("00", "full", steps=STEPS).profile == "full"
    assert open_lesson("00", "", steps=STEPS).profile == "quick"
    monkeypatch.setenv("LABKIT_PROFILE", "smoke")
    opened = open_lesson("00", "", steps=STEPS)
    assert opened.pick(smoke=1, quick=2, full=3) == 1
    assert open_lesson("00", "full", steps=STEPS).pick(smoke=1, quick=2, full=3) == 3
    with pytest.raises(ValueError, match="profile must be one of smoke, quick, full, got 'fast'"):
        open_lesson("00", "fast", steps=STEPS)


def test_minutes_are_steps_times_the_machine_s_own_step(quick_machine: Path) -> None:
    assert "about 30 s" in repr(open_lesson("00", "smoke", steps=STEPS))
    assert "about 5 min" in repr(open_lesson("00", "quick", steps=STEPS))


def test_a_real_step_is_timed() -> None:
    assert 0 < lesson._reference_step() < 60


def test_a_race_is_recorded_on_the_scoreboard(quick_machine: Path) -> None:
    from labkit import Race

    opened = open_lesson("07", "smoke", steps=STEPS)
    race = Race({"a": tiny_recipe(), "b": tiny_recipe()}, seeds=1)
    list(race)
    words = opened.record(race, "nothing")
    assert "labkit board" in words
    assert str(quick_machine.parent) not in words
    (row,) = scoreboard.read([quick_machine / "scoreboard.jsonl"])
    assert (row["notebook"], row["profile"], row["what"]) == ("07", "smoke", "nothing")
    assert row["figures"]["b: speed over a"]["n"] == 7
    opened.record_figures("more", {"x": (Estimate(1.0, 0.5, 2.0, 9), "ms")})
    assert len(scoreboard.read([quick_machine / "scoreboard.jsonl"])) == 2


@pytest.mark.parametrize(
    ("guess", "estimate", "words"),
    [
        (1.5, Estimate(1.4, 1.3, 1.6, 9), "within the interval"),
        (2.0, Estimate(1.0, 0.9, 1.1, 9), "You were 100% too high."),
        (0.5, Estimate(1.0, 0.9, 1.1, 9), "You were 50% too low."),
        (1.0, Estimate(2.0, 0.0, float("inf"), 1), "You were 50% too low."),
    ],
)
def test_a_prediction_meets_the_measurement(guess: float, estimate: Estimate, words: str) -> None:
    assert words in predict(guess).against(estimate)


def test_a_share_is_missed_by_points() -> None:
    words = predict(50, " %").against(Estimate(60.0, 59.0, 61.0, 9))
    assert "You predicted 50 %" in words
    assert "You were 10 points too low." in words


@pytest.mark.parametrize("value", ["1", None, True, [1.0]])
def test_predict_refuses_what_is_no_number(value: object) -> None:
    with pytest.raises(TypeError, match="value must be a number"):
        predict(value)  # type: ignore[arg-type]


@exercise(hint="Think.", praise="Because.")
def three(answer: object) -> str | None:
    return wrong_number(answer, 3, 0.01, "Count again.")


@pytest.mark.parametrize(
    ("answer", "right", "words"),
    [
        (None, None, "No answer yet. Hint: Think."),
        (..., None, "Hint: Think."),
        (3, True, "Right. Because."),
        (3.02, True, "Right."),
        (4, False, "4 is too high. Count again."),
        (-3, False, "-3 is too low."),
        ("3", False, "A number is wanted here, not '3'."),
        (True, False, "A number is wanted"),
        (float("nan"), False, "of a sensible size"),
        (float("-inf"), False, "of a sensible size"),
        (10**400, False, "of a sensible size"),
        ([3], False, "A number is wanted"),
    ],
)
def test_feedback(answer: object, right: bool | None, words: str) -> None:
    feedback = three(answer)
    assert feedback.right is right
    assert words in str(feedback)
    assert ("Count again" in words) <= ("Count again" in feedback._repr_html_())


def test_prose_is_markdown() -> None:
    assert Prose("**a**")._repr_markdown_() == "**a**"
