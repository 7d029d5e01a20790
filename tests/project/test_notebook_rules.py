"""The notebooks as they are kept: anatomy, ids, and outputs that belong to their cells."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from labkit.cli.store import LANGUAGE, WIDGET_VIEW, source_hashes, stale_cells

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
ID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
RANDOM_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){0,3}.*|[0-9a-f]{6,}")
PLACES = ("home", "root", "tmp", "work", "Users")  # where one machine's own files lie
PRIVATE = re.compile(rf"/(?:{'|'.join(PLACES)})/\w|[A-Z]:\\+Users| at 0x[0-9a-f]{{6}}")


def faults(notebook, size):
    """Return every rule that a notebook breaks; `size` is that of its file in bytes."""
    found = [*shape(notebook, size), *identifiers(notebook), *outputs(notebook)]
    found += [f"stale: {name}" for name in stale_cells(notebook)]
    if notebook.metadata.get("labkit", {}).get("profile") != "quick":
        found.append("its outputs are not those of the profile quick")
    if not set(notebook.metadata) <= {"kernelspec", "language_info", "labkit"}:
        found.append(f"metadata besides ours: {sorted(notebook.metadata)}")
    return found


def shape(notebook, size):
    lengths = [len(cell.source.splitlines()) for cell in code(notebook)]
    if not 25 <= len(notebook.cells) <= 60:
        yield f"{len(notebook.cells)} cells, not 25 to 60"
    if statistics.median(lengths) > 6:
        yield f"the median code cell has {statistics.median(lengths)} lines, more than 6"
    if max(lengths) > 25:
        yield f"a code cell has {max(lengths)} lines, more than 25"
    if size > 500_000:
        yield f"{size} bytes, more than 500,000"
    if not notebook.cells[0].source.startswith("# "):
        yield "the first cell is no title"
    if sum("parameters" in cell.metadata.get("tags", []) for cell in notebook.cells) != 1:
        yield "not exactly one cell has the tag 'parameters'"


def identifiers(notebook):
    names = [cell["id"] for cell in notebook.cells]
    for name in names:
        if not ID.fullmatch(name) or RANDOM_ID.fullmatch(name):
            yield f"the id {name!r} is no meaningful name"
    if len(set(names)) < len(names):
        yield "an id occurs twice"


def outputs(notebook):
    for cell in code(notebook):
        if cell.execution_count is None:
            yield f"{cell['id']} was not executed"
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"{cell['id']} ends in an error"
            if output.get("name") == "stderr":
                yield f"{cell['id']} wrote to stderr"
            if WIDGET_VIEW in output.get("data", {}):
                yield f"{cell['id']} keeps a dead widget"
            private = PRIVATE.search(str(output.get("text", "")) + str(output.get("data", "")))
            if private:
                yield f"{cell['id']} shows {private[0]!r}"


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source]


def test_there_are_notebooks():
    assert [path.name[:2] for path in NOTEBOOKS][:1] == ["00"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert faults(notebook, path.stat().st_size) == []


def good():
    """A notebook that breaks no rule."""
    cells = [new_markdown_cell("# Title", id="title")]
    cells.append(new_code_cell("profile = 'quick'", id="parameters"))
    cells[1].metadata["tags"] = ["parameters"]
    cells += [new_code_cell(f"print({n})", id=f"print-{n}") for n in range(12)]
    cells += [new_markdown_cell("Read.", id=f"read-{n}") for n in range(12)]
    notebook = new_notebook(cells=cells)
    for number, cell in enumerate(code(notebook), start=1):
        cell.execution_count = number
        cell.outputs = [new_output("stream", name="stdout", text="1\n")]
    return hashed(notebook)


def hashed(notebook):
    notebook.metadata["language_info"] = dict(LANGUAGE)
    notebook.metadata["labkit"] = {"profile": "quick", "cells": source_hashes(notebook)}
    return notebook


def with_output(kind, **content):
    notebook = good()
    notebook.cells[5].outputs = [new_output(kind, **content)]
    return notebook


def with_change(change, again=True):
    """The good one after a change; the hashes are made again unless the change is after a run."""
    notebook = good()
    change(notebook)
    return hashed(notebook) if again else notebook


def with_cell(number=2, again=True, **changes):
    return with_change(lambda notebook: notebook.cells[number].update(changes), again)


def with_lengths(count, lines):
    def change(notebook):
        for cell in code(notebook)[:count]:
            cell.source = "\n".join(["x = 1"] * lines)

    return with_change(change)


def with_cells(count):
    more = [new_markdown_cell("More.", id=f"more-{n}") for n in range(count)]
    return with_change(lambda notebook: notebook.cells.__setitem__(slice(20, None), more))


def test_the_good_one_is_good():
    assert faults(good(), 1000) == []
    assert faults(with_lengths(6, 25), 500_000) == []
    assert faults(with_cells(5), 1000) == faults(with_cells(40), 1000) == []


@pytest.mark.parametrize(
    ("notebook", "fault"),
    [
        (with_cells(4), "24 cells"),
        (with_cells(41), "61 cells"),
        (with_lengths(8, 7), "the median code cell has 7"),
        (with_lengths(1, 26), "a code cell has 26 lines"),
        (with_cell(0, source="Title"), "the first cell is no title"),
        (with_cell(1, metadata={}), "not exactly one cell"),
        (with_cell(id="a1b2c3d4"), "no meaningful name"),
        (with_cell(id="3fbe1a2c-11aa"), "no meaningful name"),
        (with_cell(id="Print_0"), "no meaningful name"),
        (with_cell(id="print-1"), "an id occurs twice"),
        (with_cell(execution_count=None), "print-0 was not executed"),
        (with_cell(source="print(9)", again=False), "stale: print-0"),
        (with_change(lambda n: n.metadata.labkit.update(profile="smoke"), False), "profile quick"),
        (with_change(lambda n: n.metadata.update(widgets={})), "metadata besides ours"),
        (with_output("error", ename="E", evalue="", traceback=[]), "print-3 ends in an error"),
        (with_output("stream", name="stderr", text="w"), "print-3 wrote to stderr"),
        (with_output("display_data", data={WIDGET_VIEW: {}}), "print-3 keeps a dead widget"),
        *((with_output("stream", name="stdout", text=f"in /{p}/ann"), f"'/{p}/a'") for p in PLACES),
        (with_output("stream", name="stdout", text="in C:\\Users\\ann"), "Users"),
        (with_output("display_data", data={"text/plain": "<x at 0x7f1234>"}), "shows ' at 0x"),
    ],
)
def test_planted_faults(notebook, fault):
    assert any(fault in line for line in faults(notebook, 1000)), faults(notebook, 1000)


def test_a_planted_large_file():
    assert faults(good(), 500_001) == ["500001 bytes, more than 500,000"]
