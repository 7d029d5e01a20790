"""What every notebook opens and closes with: profile, predictions, scoreboard."""

import re
from dataclasses import replace
from html import unescape
from math import inf, nan
from pathlib import Path

import pytest
from nbconvert.filters import markdown2html
from support.common import tiny_recipe

from labkit.compare import STEP_TIME, Quantity, Verdict, scoreboard
from labkit.lessons import Prose, Sentences, open_lesson, predict, read, read_all
from labkit.lessons.prose import escaped
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
    with pytest.raises(TypeError, match="value must be (a number|of type float)"):
        predict(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_predict_refuses_what_no_measurement_can_be(value: float) -> None:
    with pytest.raises(ValueError, match="value must be a finite number"):
        predict(value)


def test_prose_is_markdown() -> None:
    assert Prose("**a**")._repr_markdown_() == "**a**"


ODD = [
    "<img src=x onerror=alert(1)>",
    "<b>bold</b>",
    "a *star* and **two**",
    "_edge_ and __two__",
    "`code`",
    "[link](javascript:alert(1))",
    "![picture](x.png)",
    "&lt;b&gt; &amp; &#60;",
    r"back\slash \*.",
    "> quoted",
    "- item",
    "## heading",
    "1. first",
    "~~struck~~",
    "a|b",
    "$x$ and $y$",
    "one\ntwo\n\n# three",
    "<script>",
    "channels_last, 1e-3 (a+b) #1 100 %",
]


def seen(prose: object) -> str:
    """What a page shows of Markdown: nbconvert's HTML without its tags."""
    html = markdown2html(prose._repr_markdown_())  # type: ignore[attr-defined]
    tags = {tag.lower() for tag in re.findall(r"<(\w+)", html)}
    assert tags <= {"p", "strong", "ul", "li", "blockquote"}, html
    return " ".join(unescape(re.sub(r"<[^>]*>", "", html)).split())


@pytest.mark.parametrize("name", ODD)
def test_names_are_shown_in_markdown_letter_by_letter(
    name: str, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = " ".join(name.split())
    verdict = Verdict(name, name, STEP_TIME, Estimate(1.0, 0.9, 1.1, 9))
    told = Sentences(*["{candidate} against {baseline}, {own}"] * 5)
    assert seen(read(verdict, told, predict(1.0, name), own=name)).startswith(
        f"{shown} over {shown}, step time: can't tell"
    )
    assert f"{shown} against {shown}, {shown}" in seen(read(verdict, told, own=name))
    all_told = seen(read_all({name: verdict}, Sentences(*["{names}, {own}"] * 5), own=name))
    assert all_told.startswith(f"{shown}: {shown} over {shown}, step time:")
    assert all_told.endswith(f"{shown}: {shown}, {shown}")
    own = Quantity("share", "%", "difference", "more", "less", difference_unit=name)
    measured = Verdict("a", "b", own, Estimate(1.0, 0.9, 1.1, 9))
    assert f"You predicted 5 {shown}; measured" in seen(predict(5, name).against(measured))
    assert f"You predicted 5{shown}; meas" in seen(predict(5, name).against(Estimate(1, 0, 2, 9)))
    opened = open_lesson("00", "smoke")
    opened = replace(opened, number=name, facts=replace(opened.facts, processor=name))
    assert seen(opened).startswith(f"Notebook {shown}, profile “smoke”")
    assert f"{shown} · " in seen(opened)


def test_html_in_prose_is_text_whoever_has_put_it_there() -> None:
    assert "<img" in seen(Prose("**a** <img src=x onerror=alert(1)>"))


def test_plain_names_stay_as_they_are() -> None:
    for name in ("channels_last", "a + b (1e-3), 50 % · µs", "fp32 -> bf16", "R&D", "#1!"):
        assert escaped(name) == name
