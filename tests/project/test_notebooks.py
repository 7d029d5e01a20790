"""Every notebook runs from top to bottom in the smoke profile: offline, in little memory.

papermill runs it through `labkit run`, in a process of its own and with a hard time limit. In all
of its Python processes any look beyond loopback raises and is noted. The same execution is held
against the stored outputs, as nbval does; nbval itself executes two notebooks (see the Makefile).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch

HERE = Path(__file__).parents[1]
NOTEBOOKS = sorted((HERE.parent / "notebooks").glob("*.ipynb"))
# A torch that was built for CUDA takes some 280 MiB more in each Python that imports it for itself,
# and the ranks' server is a second one; Binder has the build for CPUs.
MIB_AT_MOST = 1.2e9 / 2**20 + (150 if torch.version.cuda else 0)
SECONDS_AT_MOST = 280
MARK = "# NBVAL_CHECK_OUTPUT"


def run_guarded(path, folder):
    """Run a notebook in the smoke profile; return the process and what it asked of the network."""
    log = folder / "network.log"
    environment = {
        **os.environ,
        "PYTHONPATH": f"{HERE / 'support' / 'network_guard'}{os.pathsep}{HERE.parent}",
        "LABKIT_NETWORK_LOG": str(log),
        "LABKIT_RESULTS": str(folder / "results"),
    }
    result = subprocess.run(
        [sys.executable, "-m", "labkit.cli", "run", str(path), "--profile", "smoke"],
        env=environment,
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        timeout=SECONDS_AT_MOST,
    )
    return result, log.read_text() if log.exists() else ""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path):
    before = path.read_bytes()
    result, network = run_guarded(path, tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert network == ""
    assert "(wrote to stderr)" not in result.stdout, result.stdout
    peak = re.search(r"peak memory (\d+) MiB", result.stdout)
    assert int(peak[1]) <= MIB_AT_MOST
    assert path.read_bytes() == before
    executed = tmp_path / "results" / f"{path.stem}.smoke.ipynb"
    executed = nbformat.read(executed, as_version=4)
    assert exercise_faults(executed) == []
    assert changed_outputs(nbformat.read(path, as_version=4), executed) == []
    assert (tmp_path / "results" / "scoreboard.jsonl").read_text()


def changed_outputs(stored, executed):
    """Return the ids of the cells that promise their output and now show another text."""
    ran = {cell["id"]: cell for cell in executed.cells}
    marked = [cell for cell in stored.cells if MARK in cell.source]
    assert marked
    return [cell["id"] for cell in marked if texts(cell) != texts(ran[cell["id"]])]


def texts(cell):
    """Return what a cell has written, and the texts of what it shows: no pictures, no widgets."""
    streams, shown = {}, []
    for output in cell.outputs:
        if output.output_type == "stream":
            streams[output.name] = streams.get(output.name, "") + output.text
        else:
            data = output.get("data", {})
            shown.append({kind: data[kind] for kind in data if kind.startswith("text/")})
    return streams, shown


def test_a_changed_output_is_found():
    """A split stream and another picture are no change; a letter is."""
    stored, now = (nbformat.read(NOTEBOOKS[0], as_version=4) for _ in range(2))
    cell = next(cell for cell in now.cells if MARK in cell.source)
    written = cell.outputs[0].text
    cell.outputs[0].text = written[:3]
    cell.outputs.append(nbformat.v4.new_output("stream", name="stdout", text=written[3:]))
    assert changed_outputs(stored, now) == []
    cell.outputs[1].text = written[3:].replace("a", "b", 1)
    assert changed_outputs(stored, now) == [cell["id"]]


def test_nbval_executes_two_notebooks_beside_papermill():
    """It compares as a reader's nbval would. Of the others papermill's execution is compared."""
    makefile = (HERE.parent / "Makefile").read_text(encoding="utf-8")
    named = re.search(r"--nbval-lax .* tests (notebooks/.*)", makefile)[1].split()
    assert len(named) == 2
    assert all((HERE.parent / name) in NOTEBOOKS for name in named)


def exercise_faults(notebook):
    """Return what is wrong with a notebook's exercises and their solutions, as they were run."""
    found, counts = [], {"exercise": 0, "solution": 0}
    wanted = {"exercise": "No answer yet.", "solution": "✓ Right."}
    for cell in notebook.cells:
        for tag in set(wanted) & set(cell.metadata.get("tags", [])):
            counts[tag] += 1
            said = "".join(o.get("data", {}).get("text/plain", "") for o in cell.outputs)
            if wanted[tag] not in said:
                found.append(f"{cell['id']} says {said!r}, not {wanted[tag]!r}")
    if counts["exercise"] < 3 or counts["exercise"] != counts["solution"]:
        found.append(f"{counts['exercise']} exercises, {counts['solution']} solutions")
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_exercises_wait_and_their_solutions_are_right(path):
    assert exercise_faults(nbformat.read(path, as_version=4)) == []


def test_a_wrong_solution_is_found():
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    solution = next(c for c in notebook.cells if "solution" in c.metadata.get("tags", []))
    solution.outputs[0].data["text/plain"] = "✗ Not yet. Too high."
    assert len(exercise_faults(notebook)) == 1


def test_the_guard_lets_loopback_pass_and_stops_the_rest(make_notebook, tmp_path):
    path = make_notebook(
        parameters="profile = 'quick'",
        loopback="import socket\nserver = socket.create_server(('127.0.0.1', 0))\n"
        "socket.create_connection(server.getsockname()).close()\nserver.close()",
        swallowed="import contextlib, urllib.request\nwith contextlib.suppress(OSError):\n"
        "    urllib.request.urlopen('http://example.com')",
        child="import subprocess, sys\n"
        "code = \"import socket; socket.socket().connect(('192.0.2.1', 80))\"\n"
        "print(subprocess.run([sys.executable, '-c', code], capture_output=True).returncode)",
        open="socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('192.0.2.2', 80))",
    )
    result, network = run_guarded(path, tmp_path)
    assert result.returncode == 1
    assert "cell open: PermissionError: socket.sendto: 192.0.2.2" in result.stderr
    assert network.splitlines() == [
        "socket.getaddrinfo example.com",
        "socket.connect 192.0.2.1",
        "socket.sendto 192.0.2.2",
    ]
