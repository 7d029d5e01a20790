"""The scoreboard: what is a row, what is refused, and files of other people."""

import json
import os
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy
import pytest

from labkit.cli import main
from labkit.compare import scoreboard
from labkit.measure import Estimate

FIGURE = {"value": 1.0, "low": 0.5, "high": None, "n": 3, "unit": "x"}


def entry(**changes: Any) -> dict[str, Any]:
    plain = {
        "what": "a race",
        "notebook": "00",
        "profile": "quick",
        "figures": {"step time": FIGURE},
        "facts": {"processor": "P", "cores": 2},
        "when": "2026-01-01T00:00:00+00:00",
    }
    return plain | changes


def figure(**changes: Any) -> dict[str, Any]:
    return {"step time": FIGURE | changes}


DEEP: Any = []
for _ in range(900):
    DEEP = [DEEP]
BAD_VALUES = {
    **{
        f"{key} {value!r}": {key: value}
        for key in scoreboard.KEYS
        for value in (None, 3, [], DEEP[0])
    },
    "an object": {"facts": {"processor": object()}},
    "nested facts": {"facts": {"processor": ["P"]}},
    "figure null": {"figures": {"f": None}},
    "figure list": {"figures": {"f": [1, 2]}},
    "no unit": {"figures": {"f": {"value": 1, "low": 0, "high": 2, "n": 1}}},
    "no low": {"figures": {"f": {"value": 1, "n": 1, "unit": "x"}}},
    "turned": {"figures": figure(low=2.0, high=1.0)},
    **{
        f"{key} {value!r}": {"figures": figure(**{key: value})}
        for key, values in {
            "value": ("1", True, nan, inf, [], 10**400),
            "low": ("1", nan, {}),
            "high": (True, -inf),
            "n": (None, -1, 1.5, "3", True, nan),
            "unit": (None, 3, ["x"]),
        }.items()
        for value in values
    },
}


@pytest.mark.parametrize("changes", BAD_VALUES.values(), ids=list(BAD_VALUES))
def test_what_is_no_row_is_refused_when_written_and_when_read(
    changes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="entry is not a scoreboard row"):
        scoreboard.append(entry(**changes), tmp_path / "board.jsonl")
    assert not (tmp_path / "board.jsonl").exists()
    if changes != BAD_VALUES["an object"]:
        check_a_bad_line(json.dumps(entry(**changes)).encode(), tmp_path, capsys)


LINES = {
    "deep": b"[" * 200_000,
    "deep in a row": json.dumps(entry()).replace('"P"', "[" * 900 + "]" * 900).encode(),
    "digits": json.dumps(entry()).replace("1.0", "1" * 5000).encode(),
    "infinite": json.dumps(entry()).replace("1.0", "1e999").encode(),
    "latin-1": "Müller".encode("latin-1"),
    "null": b"null",
    "number": b"3",
    "text": b'"x"',
    "brace": b"{",
    "binary": bytes(range(256)).replace(b"\n", b""),
}


@pytest.mark.parametrize("line", LINES.values(), ids=list(LINES))
def test_a_bad_line_does_not_stop_the_board(
    line: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_a_bad_line(line, tmp_path, capsys)


def check_a_bad_line(line: bytes, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The board shows the row after a bad line, and names file and line; nothing is merged."""
    file = folder / "foreign.jsonl"
    file.write_bytes(line + b"\n" + json.dumps(entry(what="still here")).encode())
    with pytest.raises(ValueError, match=r"foreign\.jsonl, line 1: .*; delete the line"):
        scoreboard.read([file])
    assert main(["board", str(file)]) == 1
    said = capsys.readouterr()
    assert "still here" in said.out
    assert f"{file}, line 1: " in said.err
    assert len(said.err.splitlines()) == 1 and len(said.err) < 500
    before = file.read_bytes()
    assert main(["board", str(file), "--merge", str(file)]) == 1
    assert file.read_bytes() == before


def test_a_file_of_garbage_is_told_of_in_a_few_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "garbage").write_bytes(b"x\n" * 5000)
    assert main(["board", str(tmp_path / "garbage")]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) < 30 and said[-1] == "labkit board: and 4980 more"


def test_names_cannot_colour_the_board_or_break_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = "\u001b[31mred\nnew line \u2028 \ud800"
    foreign = entry(what=odd, notebook=odd, profile=odd, figures={odd: FIGURE | {"unit": odd}})
    foreign["facts"] = {"processor": odd + "y" * 10**6, "cores": odd}
    (tmp_path / "b").write_text(json.dumps(foreign) + "\r\n", encoding="utf-8-sig")
    assert main(["board", str(tmp_path / "b"), "--merge", str(tmp_path / "c")]) == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) == 3 and len(said) < 5000
    assert "\x1b" not in said and "red new line" in said
    assert scoreboard.read([tmp_path / "c"]) == [foreign]


@pytest.mark.parametrize("what", ["a\u2028b", "a\nb", "\x1b[31m", "\udcff"])
def test_what_was_measured_is_named_in_one_printable_line(what: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names in an entry must be printable and one line"):
        scoreboard.row(what, {})
    with pytest.raises(ValueError, match="names in an entry must be printable and one line"):
        scoreboard.append(entry(what=what), tmp_path / "board.jsonl")


def test_an_estimate_may_hold_any_kind_of_number(tmp_path: Path) -> None:
    for value in (1, numpy.float32(1), numpy.float64(1), numpy.int64(1)):
        row = scoreboard.row("w", {"an arm\nof two": (Estimate(value, -inf, 2, 3), "x")})
        scoreboard.append(row, tmp_path / "board.jsonl")
        assert row["figures"] == {"an arm of two": FIGURE | {"low": None, "high": 2.0}}
    with pytest.raises(ValueError, match=r"figures\[.a.\] has no value"):
        scoreboard.row("w", {"a": (Estimate(nan, 0, 1, 1), "x")})


def test_what_cannot_be_written_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = scoreboard.append(entry(), tmp_path / "board.jsonl")
    before = file.read_bytes()
    for odd in (object(), nan, "\ud800"):
        with pytest.raises(ValueError, match="entry cannot be written as JSON"):
            scoreboard.append(entry(more=odd), file)
    assert file.read_bytes() == before
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is no plain file"):
        scoreboard.append(entry(), tmp_path / "pipe")


def test_a_row_after_a_line_that_was_cut_short_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "board.jsonl"
    file.write_bytes(b'{"what": "cut sh')
    scoreboard.append(entry(), file)
    faults: list[str] = []
    assert scoreboard.read([file], faults) == [entry()]
    assert len(faults) == 1
