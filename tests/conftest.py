"""Fixtures shared by all tests: where the project is, and notebooks made for one test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's top folder."""
    return ROOT


@pytest.fixture
def make_notebook(tmp_path: Path) -> Callable[..., Path]:
    """Write a notebook of named cells; a source that starts with '#' and a space is prose.

    The cell with the id 'parameters' gets papermill's tag, as in the real notebooks.
    """

    def make(name: str = "90_made.ipynb", folder: Path | None = None, **cells: str) -> Path:
        notebook = new_notebook()
        notebook.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        for identifier, source in cells.items():
            new = new_markdown_cell if source.startswith("# ") else new_code_cell
            cell: NotebookNode = new(source, id=identifier.replace("_", "-"))
            if identifier == "parameters":
                cell.metadata["tags"] = ["parameters"]
            notebook.cells.append(cell)
        path = (folder or tmp_path) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)
        return path

    return make
