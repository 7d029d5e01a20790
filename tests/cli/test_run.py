"""`labkit run` on small notebooks with real kernels.

The command is called in this process; only what a signal does to it needs one of its own.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest
from support.running import executed

from labkit.cli import places
from labkit.lessons import minutes

PARAMETERS = "profile = 'quick'"


def test_a_notebook_that_passes(labkit_run, make_notebook, tmp_path):
    path = make_notebook(
        title="# Title",
        parameters=PARAMETERS,
        where="import os\n"
        "print(profile, os.environ['LABKIT_PROFILE'], os.environ['LABKIT_RESULTS'])",
        memory="filled = b'x' * 200_000_000",
    )
    before = path.read_bytes()
    result = labkit_run(path, "--profile", "smoke")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "90_made.ipynb (smoke)"
    for line, (number, name) in zip(
        lines[1:4], enumerate(["parameters", "where", "memory"], start=1), strict=True
    ):
        assert re.fullmatch(rf" +{number}/3 {name} +\d+\.\d s", line)
    peak = re.search(r"3 cells in [\d.]+ s, peak memory (\d+) MiB", lines[4])
    assert 200 < int(peak[1]) < 500
    assert path.read_bytes() == before
    where = next(cell for cell in executed(tmp_path, "90_made").cells if cell["id"] == "where")
    assert where.outputs[0].text.split() == ["smoke", "smoke", str(tmp_path / "results")]


def test_quick_is_the_default(labkit_run, make_notebook, tmp_path):
    assert labkit_run(make_notebook(parameters=PARAMETERS)).returncode == 0
    assert executed(tmp_path, "90_made", "quick")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import os\nos._exit(3)", "Kernel died"),
        ("print('unclosed'", "SyntaxError: "),
    ],
    ids=["error", "dead kernel", "syntax"],
)
def test_a_failure_names_notebook_cell_and_error(
    labkit_run, make_notebook, tmp_path, source, message
):
    path = make_notebook(parameters=PARAMETERS, wrong_cell=source, later="print('not reached')")
    before = path.read_bytes()
    result = labkit_run(path, "--profile", "smoke", "--store")
    assert result.returncode == 1
    assert f"FAILED 90_made.ipynb: cell wrong-cell: {message}" in result.stderr
    assert "Traceback" not in result.stderr
    assert path.read_bytes() == before
    page = tmp_path / "results" / "90_made.smoke.html"
    assert "wrong" in page.read_text(encoding="utf-8")
    assert executed(tmp_path, "90_made")


def test_the_others_still_run_after_a_failure(labkit_run, make_notebook, tmp_path):
    bad = make_notebook("91_bad.ipynb", parameters=PARAMETERS, bad="1 / 0")
    good = make_notebook("92_good.ipynb", parameters=PARAMETERS)
    assert labkit_run(bad, good, "--profile", "smoke").returncode == 1
    assert executed(tmp_path, "92_good")


def test_a_process_that_is_left_behind_fails_the_run_and_is_killed(
    labkit_run, make_notebook, tmp_path
):
    pid_file = tmp_path / "pid"
    path = make_notebook(
        parameters=PARAMETERS,
        leave=(
            "import pathlib, subprocess, time\n"
            "process = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
            f"pathlib.Path({str(pid_file)!r}).write_text(str(process.pid))\n"
            "time.sleep(1)"
        ),
    )
    result = labkit_run(path, "--profile", "smoke")
    assert result.returncode == 1
    assert "processes outlived the notebook: sleep (" in result.stderr
    assert ended(int(pid_file.read_text()))


def ended(pid, seconds=15):
    """Wait until a process does nothing any more."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_kernel_too(results, make_notebook, tmp_path, sent):
    pid_file = tmp_path / "pid"
    path = make_notebook(
        parameters=PARAMETERS,
        busy=(
            "import os, pathlib\n"
            f"pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))\n"
            "while True: sum(range(10_000))"
        ),
    )
    command = [sys.executable, "-m", "labkit.cli", "run", str(path), "--profile", "smoke"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        while not (pid_file.exists() and pid_file.read_text()):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(sent)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "labkit run: interrupted" in errors
    assert "Traceback" not in errors
    assert ended(int(pid_file.read_text()))


def test_store_puts_clean_outputs_into_the_notebook(labkit_run, make_notebook):
    path = make_notebook(
        title="# Title",
        parameters=PARAMETERS,
        noisy="import sys\nprint('oops', file=sys.stderr)\n42",
        widget="import ipywidgets\nipywidgets.IntSlider()",
    )
    result = labkit_run(path, "--profile", "smoke", "--store")
    assert result.returncode == 0
    assert "noisy" in result.stdout
    assert "(wrote to stderr)" in result.stdout
    notebook = nbformat.read(path, as_version=4)
    assert [cell["id"] for cell in notebook.cells] == ["title", "parameters", "noisy", "widget"]
    assert [output.output_type for output in notebook.cells[2].outputs] == ["execute_result"]
    assert list(notebook.cells[3].outputs[0].data) == ["text/plain"]
    assert set(notebook.metadata) == {"kernelspec", "language_info", "labkit"}
    first = path.read_bytes()
    assert labkit_run(path, "--profile", "smoke", "--store").returncode == 0
    assert path.read_bytes() == first


def test_outputs_are_not_stored_in_a_notebook_that_was_edited_meanwhile(labkit_run, make_notebook):
    path = make_notebook(
        parameters=PARAMETERS,
        edit="import pathlib\nfile = pathlib.Path('90_made.ipynb')\n"
        "file.write_text(file.read_text().replace('later', 'edited'))",
        last="'later'",
    )
    result = labkit_run(path, "--profile", "smoke", "--store")
    assert result.returncode == 1
    assert "the notebook was changed during the run" in result.stderr
    assert "edited" in path.read_text()


def test_wrong_words_exit_2_before_anything_runs(labkit_run, make_notebook, tmp_path):
    path = make_notebook(parameters=PARAMETERS)
    result = labkit_run(path, "--profile", "slow")
    assert result.returncode == 2
    assert "no profile 'slow'; there are: smoke, quick, full" in result.stderr
    result = labkit_run(make_notebook("93_bare.ipynb", cell="1"))
    assert result.returncode == 2
    assert "93_bare.ipynb: no cell has the tag 'parameters'" in result.stderr
    broken = tmp_path / "94_broken.ipynb"
    broken.write_text("{")
    result = labkit_run(broken)
    assert result.returncode == 2
    assert "94_broken.ipynb is not a notebook" in result.stderr
    assert not (tmp_path / "results").exists()


def test_a_results_folder_that_cannot_be_made_is_named(labkit_run, make_notebook, tmp_path):
    (tmp_path / "results").write_text("a file, not a folder")
    result = labkit_run(make_notebook(parameters=PARAMETERS), "--profile", "smoke")
    assert result.returncode == 1
    assert str(tmp_path / "results") in result.stderr
    assert "Traceback" not in result.stderr


def test_a_cell_that_takes_too_long_is_named(labkit_run, make_notebook, monkeypatch):
    from labkit.cli import run

    monkeypatch.setitem(run.PROFILES, "smoke", 1)
    path = make_notebook(parameters=PARAMETERS, slow="import time\ntime.sleep(60)")
    result = labkit_run(path, "--profile", "smoke")
    assert result.returncode == 1
    assert "FAILED 90_made.ipynb: cell slow: A cell timed out" in result.stderr


def test_the_environment_of_a_run_does_not_name_the_user(labkit_run, make_notebook, tmp_path):
    path = make_notebook(parameters=PARAMETERS)
    labkit_run(path, "--profile", "smoke", "--store")
    assert str(tmp_path) not in path.read_text()
    assert os.path.expanduser("~") not in path.read_text()  # noqa: PTH111 - the text as it is


@pytest.fixture
def noted(tmp_path, monkeypatch):
    """Where runs are noted, in a clone of this test, on a machine whose step takes 0.25 s."""
    noted = tmp_path / "stored_runs.json"
    noted.write_text("{}")
    monkeypatch.setattr(places, "root", lambda: tmp_path)
    monkeypatch.setattr(minutes, "STORED_RUNS", noted)
    monkeypatch.setattr(minutes, "reference_step", lambda: 0.25)
    return noted


def test_how_long_a_stored_notebook_took_is_noted(labkit_run, make_notebook, noted, tmp_path):
    sleep = "import time\ntime.sleep(0.3)"
    make_notebook("90_a.ipynb", tmp_path / "notebooks", parameters=PARAMETERS, a=sleep, b=sleep)
    assert labkit_run("90", "--profile", "smoke").returncode == 0
    assert noted.read_text() == "{}"
    printed = labkit_run("90", "--store").stdout
    seconds = [float(each) for each in re.findall(r"([\d.]+) s$", printed, re.MULTILINE)]
    run = minutes.stored_run("90", "quick")
    assert run.reference_step == 0.25
    assert 0.6 <= run.seconds == pytest.approx(sum(seconds), abs=0.05 * (len(seconds) + 1))


def test_only_the_projects_own_notebooks_are_noted(labkit_run, make_notebook, noted, tmp_path):
    other = make_notebook(parameters=PARAMETERS)
    assert labkit_run(other, "--profile", "smoke", "--store").returncode == 0
    failed = make_notebook("91_b.ipynb", tmp_path / "notebooks", parameters=PARAMETERS, b="1 / 0")
    assert labkit_run(failed, "--profile", "smoke", "--store").returncode == 1
    assert noted.read_text() == "{}"
