"""What tests of `labkit run` share."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbformat import NotebookNode


def executed(
    folder: Path, name: str, profile: str = "smoke", results: str = "results"
) -> NotebookNode:
    """Return the executed copy of a notebook."""
    return nbformat.read(folder / results / f"{name}.{profile}.ipynb", as_version=4)
