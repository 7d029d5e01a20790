"""`labkit run` on notebooks of other people: odd, of another format, endless, or of one name."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import nbformat
import psutil
import pytest
from support.running import executed

from labkit import files
from labkit.cli import bounded, foreign, main
from labkit.cli.run import names_of_results

PARAMETERS = "profile = 'quick'"


def notebook(*cells, minor=4, **more):
    """A notebook as some other editor writes it: only what is given."""
    return {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": minor} | more


def cell(source, **more):
    plain = {"cell_type": "code", "execution_count": None, "outputs": [], "metadata": {}}
    return plain | {"source": source} | more


def parameters(**more):
    return cell(PARAMETERS, metadata={"tags": ["parameters"]}, **more)


@pytest.mark.parametrize(
    ("minor", "cells"),
    [
        (4, [parameters(), cell(["(1\n", "+ 0)"], metadata={"tags": None}), cell("2")]),
        (5, [parameters(), cell("1"), cell("2", id="a")]),
        (5, [parameters(id="a"), cell("1", id="a"), cell("2", id="cell-2")]),
    ],
    ids=["format 4.4, null tags", "4.5 without ids", "two of one id"],
)
def test_cells_without_ids_are_run_and_their_outputs_stored(
    labkit_run, tmp_path, minor, cells, recwarn
):
    path = tmp_path / "other.ipynb"
    path.write_text(json.dumps(notebook(*cells, minor=minor)))
    result = labkit_run(path, "--profile", "smoke", "--store")
    assert (result.returncode, result.stderr) == (0, "")
    stored = nbformat.read(path, as_version=4)
    assert [each.source for each in stored.cells] == ["".join(each["source"]) for each in cells]
    assert [each.outputs[0].data["text/plain"] for each in stored.cells[1:]] == ["1", "2"]
    ids = [each["id"] for each in stored.cells]
    assert len(set(ids)) == 3
    # what had an id keeps it, and a second run changes nothing
    given = [each.get("id") for each in cells]
    assert all(
        old in (None, new) or given.count(old) > 1 for old, new in zip(given, ids, strict=True)
    )
    first = path.read_bytes()
    assert labkit_run(path, "--profile", "smoke", "--store").returncode == 0
    assert path.read_bytes() == first
    assert len(recwarn) == 0


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "null",
        "3",
        '"text"',
        "{}",
        "{",
        "[" * 100_000,
        '{"nbformat": 4}',
        '{"nbformat": 9, "cells": []}',
        '{"nbformat": "4", "cells": []}',
        json.dumps(notebook(metadata=None)),
        json.dumps(notebook(3)),
        json.dumps(notebook(None)),
        json.dumps(notebook({})),
        json.dumps(notebook(cells=None)),
        json.dumps(notebook(parameters(), {"cell_type": "code", "source": "1", "metadata": {}})),
        json.dumps(notebook(parameters(), cell(None))),
        json.dumps(notebook(parameters(), cell("1", metadata=None))),
        json.dumps(notebook(parameters(), cell("1", cell_type="poem"))),
        json.dumps(notebook(parameters(), cell("1", id=3))),
        b"\xff\xfe\x00",
    ],
)
def test_what_is_no_notebook_is_refused_in_a_line(content, tmp_path, capsys):
    path = tmp_path / "odd.ipynb"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["run", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("labkit run: odd.ipynb is not a notebook: ")
    assert said.count("\n") == 1 and len(said) < 400


def test_a_notebook_without_parameters_is_refused_also_where_tags_are_null(tmp_path, capsys):
    path = tmp_path / "bare.ipynb"
    path.write_text(json.dumps(notebook(cell("1", metadata={"tags": None}))))
    assert main(["run", str(path)]) == 2
    assert "bare.ipynb: no cell has the tag 'parameters'" in capsys.readouterr().err


def test_a_notebook_that_may_not_be_read_is_named(tmp_path, capsys, monkeypatch):
    path = tmp_path / "secret.ipynb"
    path.write_text("{}")

    def refuse(*words, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(foreign.Path, "read_text", refuse)
    assert main(["run", str(path)]) == 2
    assert f"cannot read {path}: Permission denied" in capsys.readouterr().err


def test_a_name_of_too_many_digits_is_no_notebook(capsys):
    assert main(["run", "9" * 5000]) == 2
    assert "labkit run: no notebook '999" in capsys.readouterr().err


def test_notebooks_of_one_name_have_results_of_their_own(
    labkit_run, make_notebook, tmp_path, monkeypatch
):
    """From a wheel as well, where only paths name notebooks, and in a folder with odd letters."""
    monkeypatch.setattr("labkit.cli.places.clone", lambda: None)
    monkeypatch.setenv("LABKIT_RESULTS", str(tmp_path / "res {x}"))
    paths = [
        make_notebook("n[1]{0}.ipynb", tmp_path / folder, parameters=PARAMETERS, say=f"'{folder}'")
        for folder in ("a", "b")
    ]
    assert labkit_run(*paths, "--profile", "smoke", "--store").returncode == 0
    for name, folder in (("n[1]{0}", "a"), ("n[1]{0}-2", "b")):
        ran = executed(tmp_path, name, results="res {x}")
        assert ran.cells[-1].outputs[0].data["text/plain"] == f"'{folder}'"
    result = labkit_run("03")
    assert result.returncode == 2
    assert "labkit was installed without its notebooks" in result.stderr


def test_numbers_keep_results_apart():
    paths = [files.Path(name) for name in ("a/x.ipynb", "b/x.ipynb", "x-2.ipynb", "c/x.ipynb")]
    assert names_of_results(paths) == ["x", "x-2", "x-2-2", "x-3"]


def test_endless_output_ends_the_run_before_it_fills_memory_or_disk(
    labkit_run, make_notebook, tmp_path, monkeypatch
):
    monkeypatch.setattr(bounded, "MOST_MIB", 2)
    path = make_notebook(
        parameters=PARAMETERS,
        frames="from IPython.display import clear_output\n"
        "for frame in range(40):\n    clear_output(wait=True); print('x' * 100_000, frame)",
        endless="while True:\n    try:\n        while True: print('x' * 1000)\n"
        "    except KeyboardInterrupt: pass",
        later="'not reached'",
    )
    before = psutil.Process().memory_info().rss
    result = labkit_run(path, "--profile", "smoke")
    assert result.returncode == 1
    assert "FAILED 90_made.ipynb: cell endless: more than 2 MiB of output" in result.stderr
    assert "frames" in result.stdout  # what a cell clears does not count
    assert psutil.Process().memory_info().rss - before < 200 * 2**20
    written = [file.stat().st_size for file in (tmp_path / "results").iterdir()]
    assert max(written) < 5 * 2**20


def test_endless_small_outputs_end_as_well(labkit_run, make_notebook, monkeypatch):
    monkeypatch.setattr(bounded, "MOST_MIB", 1)
    endless = "from IPython.display import display\nfor i in range(10**6): display(i)"
    result = labkit_run(make_notebook(parameters=PARAMETERS, endless=endless))
    assert "cell endless: more than 1 MiB of output" in result.stderr


def test_an_error_is_told_in_one_line_without_colours(labkit_run, make_notebook):
    path = make_notebook(
        parameters=PARAMETERS, wrong="raise ValueError('\\x1b[31mred\\nsecond ' + 'x' * 10_000)"
    )
    result = labkit_run(path, "--profile", "smoke")
    told = next(line for line in result.stderr.splitlines() if line.startswith("FAILED"))
    assert re.search(r"cell wrong: ValueError: \ufffd\[31mred second x+$", told)
    assert len(told) < 600 and "\x1b" not in result.stderr


def test_a_page_shows_foreign_names_as_text(labkit_run, make_notebook, tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    path = make_notebook(
        f"{evil.replace('/', '')}.ipynb",
        parameters=PARAMETERS,
        table=f"from labkit.table import Table\nTable(({evil!r},), (({evil!r},),), {evil!r})",
        prose="from labkit.lessons import Prose, open_lesson, predict\n"
        f"from labkit.measure import Estimate\nPrediction = predict(1.0, {evil!r})\n"
        "Prediction.against(Estimate(1.0, 0.0, 2.0, 9))",
        own=f"Prose('**a** ' + {evil!r})",
        lesson=f"open_lesson({evil!r}, 'smoke')",
        feedback=f"from labkit.lessons import Feedback\nFeedback(False, {evil!r}, {evil!r})",
        picture=f"from labkit.widgets import figure, picture\npicture(figure(1, 1), {evil!r})",
        wrong=f"raise ValueError({evil!r})",
    )
    assert labkit_run(path, "--profile", "smoke").returncode == 1
    (page,) = (tmp_path / "results").glob("*.html")
    html = page.read_text(encoding="utf-8")
    assert html.count("onerror") > 8
    assert [
        tag for tag in re.findall(r"<img[^>]*>", html) if "onerror" in tag.split('alt="')[0]
    ] == []
    assert re.findall(r'alt="[^"]*<img', html) == []


def test_a_wheel_works_alone_and_writes_nothing_among_the_packages(root, tmp_path):
    site = tmp_path / "site-packages"
    shutil.copytree(root / "labkit", site / "labkit", ignore=shutil.ignore_patterns("__pycache__"))
    (site / "notebooks").mkdir()
    before = sorted(site.rglob("*"))
    code = (
        "from labkit.compare import scoreboard\nfrom labkit.measure import Estimate\n"
        "from labkit.cli import main\n"
        "print(scoreboard.append(scoreboard.row('w', {'a': (Estimate(1, 0, 2, 3), 'x')})))\n"
        "main(['board']); main(['run', '03'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"LABKIT_RESULTS": "", "LABKIT_DATA": ""}
    (tmp_path / "work").mkdir()
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "work",
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.stdout.splitlines()[0] == str(tmp_path / "work/results/scoreboard.jsonl")
    assert "1.00 x" in result.stdout
    assert "installed without its notebooks" in result.stderr
    assert sorted(site.rglob("*")) == before
