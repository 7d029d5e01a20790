"""Fixtures shared by all tests: where the project is, and notebooks made for one test."""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from support.spread import rank

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes long first."""
    items.sort(key=lambda item: rank(item.nodeid))


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist there is nothing to deal out
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Deal the tests out to several processes so that what is shared stays together."""
    from support.spread import Shares

    return Shares(config, log)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the figures that tests recorded with `record_property("figure", text)`."""
    for report in terminalreporter.stats.get("passed", []):
        for name, text in report.user_properties:
            if name == "figure":
                terminalreporter.write_line(f"{report.nodeid}: {text}")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Pin torch to one thread for all tests; one that is about threads asks for more itself.

    The tests run in as many processes as there are cores, so a second thread would only wait. It
    would also split sums in another way on each machine.
    """
    from labkit.facts import threads

    with threads(1):
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's top folder."""
    return ROOT


@pytest.fixture(scope="session")
def pyproject(root: Path) -> dict[str, Any]:
    """What stands in pyproject.toml."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def servers() -> set[psutil.Process]:
    """What stays between launches of ranks: the fork server and Python's resource tracker."""
    from support.ranks import running

    from labkit.distributed import launch

    launch(int)
    return running()


@pytest.fixture
def nothing_is_left(
    servers: set[psutil.Process], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Fail a test after which a rank still runs, or has left its folder."""
    from support.ranks import END, running, wait_for

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert list(tmp_path.glob("labkit-ranks-*")) == []
    wait_for(lambda: running() <= servers, END)


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
