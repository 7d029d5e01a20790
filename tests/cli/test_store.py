"""Storing outputs: what is kept, what is dropped, and that a stale notebook is found out."""

from __future__ import annotations

import copy

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from labkit.cli.store import WIDGET_VIEW, source_hashes, stale_cells, stored


def notebook():
    return new_notebook(
        cells=[
            new_markdown_cell("# Title", id="title"),
            new_code_cell("profile = 'quick'", id="parameters", metadata={"tags": ["parameters"]}),
            new_code_cell("draw()", id="draw"),
            new_code_cell("", id="empty"),
            new_code_cell("6 * 7", id="answer", metadata={"tags": ["mine"]}),
        ]
    )


def executed():
    """The same notebook as papermill leaves it: a cell more, time stamps, widget state."""
    result = notebook()
    injected = new_code_cell("profile = 'smoke'", id="abc123", execution_count=2)
    injected.metadata["tags"] = ["injected-parameters"]
    result.cells.insert(2, injected)
    result.cells[1].execution_count = 1
    draw, answer = result.cells[3], result.cells[5]
    draw.execution_count = 3
    draw.outputs = [
        new_output("stream", name="stdout", text="a line\n"),
        new_output("stream", name="stderr", text="a warning\n"),
        new_output(
            "display_data",
            data={WIDGET_VIEW: {"model_id": "1"}, "image/png": "iVBO", "text/plain": "Race"},
        ),
    ]
    answer.execution_count = 4
    answer.outputs = [new_output("execute_result", data={"text/plain": "42"}, execution_count=4)]
    for cell in result.cells:
        cell.metadata["papermill"] = {"start_time": "2026-01-01", "duration": 1.0}
        cell.metadata["execution"] = {"shell.execute_reply": "2026-01-01"}
    result.metadata["papermill"] = {"input_path": "/home/somebody/x.ipynb"}
    result.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    return result


def test_outputs_move_and_nothing_else_does():
    original = notebook()
    before = copy.deepcopy(original)
    result = stored(original, executed(), "quick")
    assert original == before
    nbformat.validate(result)
    assert [cell["id"] for cell in result.cells] == [cell["id"] for cell in original.cells]
    assert [cell.source for cell in result.cells] == [cell.source for cell in original.cells]
    assert [cell.metadata for cell in result.cells] == [cell.metadata for cell in original.cells]
    assert result.cells[4].outputs[0].data == {"text/plain": "42"}


def test_what_changes_from_run_to_run_is_dropped():
    text = nbformat.writes(stored(notebook(), executed(), "quick"))
    for word in ("papermill", "execute_reply", "widget", "stderr", "injected", "somebody"):
        assert word not in text
    again = executed()
    again.metadata["papermill"]["input_path"] = "elsewhere"
    again.cells[2]["id"] = "def456"
    assert nbformat.writes(stored(notebook(), again, "quick")) == text


def test_the_picture_beside_a_widget_stays():
    outputs = stored(notebook(), executed(), "quick").cells[2].outputs
    assert outputs[0].text == "a line\n"
    assert outputs[1].data == {"image/png": "iVBO", "text/plain": "Race"}


def test_cells_are_numbered_as_without_the_injected_one():
    result = stored(notebook(), executed(), "quick")
    counts = [cell.execution_count for cell in result.cells if cell.cell_type == "code"]
    assert counts == [1, 2, None, 3]
    assert result.cells[4].outputs[0].execution_count == 3


def test_storing_again_changes_nothing():
    once = stored(notebook(), executed(), "quick")
    assert stored(once, executed(), "quick") == once


def test_an_old_widget_state_and_old_outputs_go():
    original = executed()
    del original.cells[2]
    original.cells[2].outputs *= 3
    assert stored(original, executed(), "quick").metadata.keys() == {
        "kernelspec",
        "language_info",
        "labkit",
    }


def test_the_profile_and_the_hashes_are_recorded():
    result = stored(notebook(), executed(), "full")
    assert result.metadata.labkit.profile == "full"
    assert result.metadata.labkit.cells == source_hashes(notebook())
    assert list(source_hashes(notebook())) == ["parameters", "draw", "answer"]


@pytest.mark.parametrize("fault", ["other source", "not executed"])
def test_outputs_of_another_notebook_are_refused(fault):
    other = executed()
    if fault == "other source":
        other.cells[5].source = "6 * 9"
    else:
        del other.cells[5]
    with pytest.raises(ValueError, match="cell answer is not the one that was executed"):
        stored(notebook(), other, "quick")


def stale_after(change):
    result = nbformat.reads(nbformat.writes(stored(notebook(), executed(), "quick")), as_version=4)
    change(result)
    return stale_cells(result)


def test_a_notebook_as_it_was_stored_is_not_stale():
    assert stale_after(lambda notebook: None) == []


def test_prose_may_change():
    assert stale_after(lambda notebook: notebook.cells[0].update(source="# Better")) == []


def test_planted_stale_cells_are_named():
    def swap(notebook):
        notebook.cells[2], notebook.cells[4] = notebook.cells[4], notebook.cells[2]

    changed = stale_after(lambda notebook: notebook.cells[4].update(source="6 * 9"))
    assert changed == ["answer"]
    assert stale_after(lambda notebook: notebook.cells[4].update(id="reply")) == ["reply", "answer"]
    new = new_code_cell("1", id="new")
    assert "new" in stale_after(lambda notebook: notebook.cells.append(new))
    assert "draw" in stale_after(lambda notebook: notebook.cells.pop(2))
    assert set(stale_after(swap)) == {"draw", "answer"}


def test_a_notebook_that_was_never_stored_is_stale():
    assert stale_cells(notebook()) == ["parameters", "draw", "answer"]
    assert "answer" in stale_cells(executed())
