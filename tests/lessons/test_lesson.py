"""What every notebook opens and closes with: profile, predictions, scoreboard."""

from pathlib import Path

import pytest
from support.common import tiny_recipe

from labkit.compare import scoreboard
from labkit.lessons import Prose, open_lesson, predict
from labkit.measure.statistics import Estimate


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("LABKIT_RESULTS", str(tmp_path))
    monkeypatch.delenv("LABKIT_PROFILE", raising=False)
    return tmp_path


def test_the_profile_comes_from_the_cell_then_the_environment_then_quick(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_lesson("00", "full").profile == "full"
    assert open_lesson("00", "").profile == "quick"
    monkeypatch.setenv("LABKIT_PROFILE", "smoke")
    opened = open_lesson("00", "")
    assert opened.pick(smoke=1, quick=2, full=3) == 1
    assert open_lesson("00", "full").pick(smoke=1, quick=2, full=3) == 3
    with pytest.raises(ValueError, match="profile must be one of smoke, quick, full, got 'fast'"):
        open_lesson("00", "fast")


def test_a_race_is_recorded_on_the_scoreboard(results: Path) -> None:
    from labkit import Race

    opened = open_lesson("07", "smoke")
    race = Race({"a": tiny_recipe(), "b": tiny_recipe()}, seeds=1)
    list(race)
    said = opened.record(race, "nothing")
    assert "labkit board" in said
    assert str(results.parent) not in said
    (row,) = scoreboard.read([results / "scoreboard.jsonl"])
    assert (row["notebook"], row["profile"], row["what"]) == ("07", "smoke", "nothing")
    assert row["figures"]["b: speed over a"]["n"] == race.verdict("b").estimate.n
    opened.record_figures("more", {"x": (Estimate(1.0, 0.5, 2.0, 9), "ms")})
    assert len(scoreboard.read([results / "scoreboard.jsonl"])) == 2


@pytest.mark.parametrize("value", ["1", None, True, [1.0]])
def test_predict_refuses_what_is_no_number(value: object) -> None:
    with pytest.raises(TypeError, match="value must be a number"):
        predict(value)  # type: ignore[arg-type]


def test_prose_is_markdown() -> None:
    assert Prose("**a**")._repr_markdown_() == "**a**"
