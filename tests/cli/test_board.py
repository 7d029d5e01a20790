"""`labkit board`: the table, and merging the files of many machines."""

from __future__ import annotations

import json

import pytest

from labkit.cli import main
from labkit.cli.board import table

FIGURES = {"step time": {"value": 1.3141, "low": 1.24, "high": 1.39, "n": 60, "unit": "x"}}


def row(processor="A processor", when="2026-01-01T00:00:00+00:00", figures=FIGURES):
    return {
        "what": "channels_last over default",
        "notebook": "00",
        "profile": "quick",
        "figures": figures,
        "facts": {"processor": processor, "cores": 2},
        "when": when,
    }


def write(path, *rows):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in rows), encoding="utf-8")
    return path


def test_a_line_holds_the_figure_with_interval_and_n_and_machine():
    header, rule, line = str(table([row()])).splitlines()
    assert set(rule) == {"─", " "}
    for word in ("1.31 x", "1.24 … 1.39", " 60 ", "A processor, 2 cores", "00", "quick"):
        assert word in line
    assert line.index("1.24") == header.index("95 % interval")


def test_a_figure_without_an_interval_shows_none():
    figures = {"peak": {"value": 812, "low": None, "high": None, "n": 1, "unit": "MiB"}}
    assert "…" not in str(table([row(figures=figures)]))
    assert "812 MiB" in str(table([row(figures=figures)]))


def test_the_default_file_is_that_of_the_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LABKIT_RESULTS", str(tmp_path))
    write(tmp_path / "scoreboard.jsonl", row())
    assert main(["board"]) == 0
    assert "A processor" in capsys.readouterr().out


def test_merging_keeps_every_row_once_oldest_first(tmp_path, capsys):
    one = write(tmp_path / "one.jsonl", row("new", "2026-03-01"), row("shared", "2026-02-01"))
    two = write(tmp_path / "two.jsonl", row("shared", "2026-02-01"), row("old", "2026-01-01"))
    out = tmp_path / "all.jsonl"
    assert main(["board", str(one), str(two), "--merge", str(out)]) == 0
    merged = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [entry["facts"]["processor"] for entry in merged] == ["old", "shared", "new"]
    assert capsys.readouterr().out.count(" cores") == 3


def test_a_missing_file_says_how_to_make_one(tmp_path, capsys):
    missing = tmp_path / "none.jsonl"
    assert main(["board", str(missing)]) == 2
    error = capsys.readouterr().err
    assert str(missing) in error
    assert "labkit run 00" in error


@pytest.mark.parametrize("content", ["{", '{"what": 1}', "[]"])
def test_a_damaged_file_is_named_with_its_line(tmp_path, capsys, content):
    file = write(tmp_path / "bad.jsonl", row())
    with file.open("a", encoding="utf-8") as handle:
        handle.write(content + "\n")
    assert main(["board", str(file)]) == 1
    assert f"{file}, line 2" in capsys.readouterr().err


def test_a_figure_without_its_interval_is_refused(tmp_path, capsys):
    file = write(tmp_path / "bare.jsonl", row(figures={"step time": {"value": 1, "unit": "x"}}))
    assert main(["board", str(file)]) == 1
    assert "a figure lacks 'low'" in capsys.readouterr().err
