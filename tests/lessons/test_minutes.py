"""How long a notebook computes here: what its stored run took, at this machine's pace."""

import json
from pathlib import Path

import pytest

from labkit.lessons import minutes, open_lesson
from labkit.lessons.minutes import StoredRun


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file in which notebook 07 took 60 seconds, where a step takes half as long as here."""
    file = tmp_path / "stored_runs.json"
    file.write_text("{}")
    monkeypatch.setattr(minutes, "STORED_RUNS", file)
    monkeypatch.setattr(minutes, "reference_step", lambda: 0.5)
    minutes.store_run("07", "quick", StoredRun(seconds=60, reference_step=0.25))
    return file


def test_a_machine_half_as_fast_takes_twice_as_long(stored: Path) -> None:
    assert minutes.expected_seconds("07", "quick") == 120
    assert "It computes for about 2 min on this machine." in repr(open_lesson("07", "quick"))
    minutes.store_run("07", "quick", StoredRun(15, 0.25))
    assert "about 30 s" in open_lesson("07", "quick")._repr_markdown_()


@pytest.mark.parametrize(("number", "profile"), [("07", "full"), ("08", "quick")])
def test_without_a_stored_run_no_time_is_claimed(stored: Path, number: str, profile: str) -> None:
    assert minutes.expected_seconds(number, profile) is None
    said = repr(open_lesson(number, profile))
    assert "has not been measured yet" in said and "about" not in said


def test_a_run_replaces_that_of_its_profile_alone(stored: Path) -> None:
    minutes.store_run("07", "smoke", StoredRun(5, 0.25))
    minutes.store_run("07", "smoke", StoredRun(6, 0.25))
    assert json.loads(stored.read_text()) == {
        "07": {
            "quick": {"seconds": 60, "reference_step": 0.25},
            "smoke": {"seconds": 6, "reference_step": 0.25},
        }
    }


def test_a_real_step_is_timed() -> None:
    assert 0 < minutes.reference_step() < 60


def test_the_file_that_ships_holds_runs_of_notebooks(root: Path) -> None:
    numbers = {path.name[:2] for path in (root / "notebooks").glob("*.ipynb")}
    for number, runs in json.loads(minutes.STORED_RUNS.read_text()).items():
        assert number in numbers and set(runs) <= {"smoke", "quick", "full"}
        for profile in runs:
            run = minutes.stored_run(number, profile)
            assert run is not None and run.seconds > 0 < run.reference_step
