"""The table and the command of the benchmarks, and the cost of importing.

Tested where no clock of a real machine is needed; the other benchmarks have files of their own.
"""

from __future__ import annotations

import sys
import types
from functools import partial

import pytest

from benchmarks import __main__ as command
from benchmarks import import_cost, rows
from benchmarks.rows import Row
from labkit.compare import scoreboard
from labkit.measure.statistics import Estimate

# --- import cost


def test_imports_alternate_and_their_difference_is_paired():
    order = []

    def timed(names):
        order.append(names)
        torch_seconds = float(len(order))  # a machine that gets slower and slower
        return [torch_seconds] if names == import_cost.ALONE else [torch_seconds, 0.05]

    alone, both = import_cost.measure(2, timed)
    assert order == [import_cost.BOTH] * 2 + [import_cost.ALONE] * 2 + [import_cost.BOTH]
    torch_row, labkit_row, difference = import_cost.rows(alone, both)
    assert torch_row.estimate.value == pytest.approx((3 + 4) / 2)
    assert labkit_row.estimate.value == pytest.approx(0.05)
    assert difference.estimate.value == pytest.approx(((2.05 - 3) + (5.05 - 4)) / 2)
    assert difference.estimate.n == 2


def test_time_imports_times_each_name_in_a_process_of_its_own():
    seconds = import_cost.time_imports(("json", "labkit.table"))
    assert len(seconds) == 2
    assert all(value > 0 for value in seconds)


# --- the table and the command


def test_the_table_shows_value_interval_n_and_note():
    found = [
        Row("labkit", Estimate(4.2, 3.1, 5.3, 80), "%", "the leanest"),
        Row("race", Estimate(1.0, -float("inf"), float("inf"), 2), "s"),
    ]
    lines = str(rows.table({"loop": found}, note="a machine")).splitlines()
    assert " ".join(lines[0].split()) == "benchmark what value 95 % interval n note"
    assert " ".join(lines[2].split()) == "loop labkit 4.20 % 3.10 to 5.30 80 the leanest"
    assert " ".join(lines[3].split()) == "loop race 1.00 s too few 2"
    assert lines[-1] == "a machine"


@pytest.fixture
def fakes(monkeypatch, tmp_path):
    """Replace all benchmarks by quick ones, the second of which fails; results go to tmp_path."""
    monkeypatch.setenv("LABKIT_RESULTS", str(tmp_path))
    asked = []

    def good(name, quick):
        asked.append((name, quick))
        return [
            Row(f"{name} figure", Estimate(1.0, 0.5, 1.5, 9), "ms"),
            rows.not_installed(f"{name} other", "other"),
        ]

    def bad(name, quick):
        raise RuntimeError("planted")

    for number, name in enumerate(command.BENCHMARKS):
        module = types.ModuleType(name)
        module.run = partial(bad if number == 1 else good, name)
        monkeypatch.setitem(sys.modules, f"benchmarks.{name}", module)
    return asked


def test_the_command_goes_on_after_a_failure_and_says_which(fakes, capsys, tmp_path):
    assert command.main([]) == 1
    output, errors = capsys.readouterr()
    survivors = [name for name in command.BENCHMARKS if name != command.BENCHMARKS[1]]
    assert fakes == [(name, False) for name in survivors]
    assert all(f"{name} figure" in output for name in survivors)
    assert f"failed: {command.BENCHMARKS[1]}" in errors
    assert "planted" in errors
    assert "1 thread ·" in output  # the machine's facts
    noted = scoreboard.read([tmp_path / "scoreboard.jsonl"])
    assert sorted(entry["what"] for entry in noted) == sorted(f"benchmark {n}" for n in survivors)
    assert all(list(entry["figures"]) == [f"{entry['what'][10:]} figure"] for entry in noted)


def test_the_command_runs_what_is_named_and_passes_quick_on(fakes, tmp_path):
    name = command.BENCHMARKS[2]
    assert command.main([name, "--quick"]) == 0
    assert fakes == [(name, True)]
    (entry,) = scoreboard.read([tmp_path / "scoreboard.jsonl"])
    assert entry["profile"] == "quick"


def test_an_unknown_name_is_refused_before_anything_runs(fakes, capsys):
    with pytest.raises(SystemExit):
        command.main([command.BENCHMARKS[0], "speed"])
    assert "no benchmark 'speed'; there are import_cost" in capsys.readouterr().err
    assert fakes == []
