"""A notebook without a front end runs the same code and keeps the static twins."""

from __future__ import annotations

import base64
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from support.synthetic_feed import TABLE

VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def executed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> NotebookNode:
    path = f"import sys; sys.path[:0] = [{str(root)!r}, {str(root / 'tests')!r}]"
    cells = {
        "setup": f"{path}\nimport warnings; warnings.filterwarnings('error', module='labkit')\n"
        "from support.synthetic_feed import SyntheticFeed\n"
        "from labkit.widgets import figure, knob, live",
        "race": "run = live(SyntheticFeed(rounds=40, seconds=0.005))",
        "wait": "await run\nprint(run)",
        "in-cell": "run = live(SyntheticFeed(rounds=20), background=False)",
        "knob": "knob(lambda width=3: (figure(width, 1), 'a width'), width=(1, 5))",
        "failed": "run = live(SyntheticFeed(rounds=20, fail_at=10))",
        "caught": "try:\n    await run\nexcept RuntimeError as error:\n    print(error)",
    }
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(text, id=name) for name, text in cells.items()]
    folder = {"metadata": {"path": str(tmp_path_factory.mktemp("notebook"))}}
    client = NotebookClient(
        notebook, timeout=100, kernel_name="python3", resources=folder, store_widget_state=False
    )
    client.execute()
    return notebook


def outputs(notebook: NotebookNode, cell_id: str) -> list[NotebookNode]:
    found: list[NotebookNode] = next(c.outputs for c in notebook.cells if c.id == cell_id)
    return found


def test_nothing_complains(executed: NotebookNode) -> None:
    for cell in executed.cells:
        assert not [
            o for o in cell.outputs if o.output_type == "error" or o.get("name") == "stderr"
        ]
    assert outputs(executed, "wait")[0].text == "live run, finished\n"
    assert outputs(executed, "caught")[0].text == "the loss is not a number\n"


@pytest.mark.parametrize(
    ("cell_id", "text"),
    [
        ("race", f"Finished. Round 40 of 40.\n{TABLE}"),
        ("in-cell", f"Finished. Round 20 of 20.\n{TABLE}"),
        (
            "failed",
            f"Failed at 50%: RuntimeError: the loss is not a number. Round 10 of 20.\n{TABLE}",
        ),
    ],
)
def test_a_live_view_leaves_picture_and_table_and_no_dead_widget(
    executed: NotebookNode, cell_id: str, text: str
) -> None:
    (output,) = outputs(executed, cell_id)
    assert base64.b64decode(output.data["image/png"]).startswith(b"\x89PNG")
    assert output.data["text/plain"] == text
    assert VIEW not in output.data and "widgets" not in executed.metadata


def test_a_knob_leaves_its_first_picture(executed: NotebookNode) -> None:
    (output,) = outputs(executed, "knob")
    assert output.data["text/plain"] == "Figure for width 3. a width"
    assert "image/png" in output.data


def test_the_html_page_shows_the_pictures(executed: NotebookNode) -> None:
    page, _ = HTMLExporter().from_notebook_node(executed)
    for cell_id in ("race", "in-cell", "failed", "knob"):
        png = outputs(executed, cell_id)[0].data["image/png"]
        assert png.strip() in page
