"""Notebooks of other editors: what they leave out is filled in, what is no notebook is refused.

Older formats give cells no ids, some tools write none, or two alike, or tags that are null.
nbformat draws ids anew at each reading, and papermill and nbclient meet the rest with errors of
their own. So a notebook is brought into shape once, here, and that is what is run.
"""

from pathlib import Path

import nbformat
from nbformat import NotebookNode

from labkit.cli import UsageError
from labkit.table import one_line

MINOR = 5
"""The first version of format 4 in which cells have ids."""


def read(notebook: Path) -> NotebookNode:
    """Return a notebook whose cells have ids, all different, and lists of tags.

    Raises:
        UsageError: the file cannot be read, or is no notebook.
    """
    try:
        text = notebook.read_text(encoding="utf-8")
        content: NotebookNode = nbformat.convert(nbformat.reader.reads(text), 4)
        _bring_into_shape(content)
    except OSError as error:
        raise UsageError(f"cannot read {notebook}: {error.strerror or error}") from error
    # A file may hold anything, and nbformat says of each kind in another way that it is none.
    except Exception as error:
        reason = one_line(str(error).partition("\n")[0])[:200] or type(error).__name__
        raise UsageError(f"{notebook.name} is not a notebook: {reason}") from error
    return content


def _bring_into_shape(content: NotebookNode) -> None:
    given = [cell.get("id") for cell in content.cells]
    taken: set[object] = {None}
    for number, cell in enumerate(content.cells, start=1):
        _check(cell, number)
        if cell.get("id") in taken:
            cell["id"] = _free(f"cell-{number}", [*given, *taken])
        taken.add(cell["id"])
        tags = cell.metadata.get("tags", [])
        if not isinstance(tags, list):
            cell.metadata["tags"] = []
    content.nbformat_minor = max(MINOR, content.nbformat_minor)
    if not isinstance(content.metadata, dict):
        raise ValueError("its metadata are no dictionary")


def _check(cell: NotebookNode, number: int) -> None:
    """Raise a ValueError unless this is a cell."""
    right = (
        isinstance(cell.get("source"), str)
        and isinstance(cell.get("metadata"), dict)
        and isinstance(cell.get("id", ""), str)
        and cell.get("cell_type") in ("code", "markdown", "raw")
        and (cell.cell_type != "code" or isinstance(cell.get("outputs"), list))
    )
    if not right:
        raise ValueError(f"cell {number} lacks its source, metadata, type or outputs")


def _free(name: str, taken: list[object]) -> str:
    while name in taken:
        name += "-"
    return name
