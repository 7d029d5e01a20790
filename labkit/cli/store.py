"""Put the outputs of an executed notebook into the notebook that is kept under version control.

A stored output is a claim. So what is kept is only what the cells printed: no time stamps, no
papermill bookkeeping, no state of widgets (without a kernel they are dead, and they hide the
picture that stands beside them), nothing from stderr. Sources and cell ids are never touched: the
original is the base, and only outputs move over. The hash of every cell's source is kept with them,
so that a notebook whose cells were changed after its last run is found out.
"""

import copy
import hashlib
from typing import Any

from nbformat import NotebookNode

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
LANGUAGE = {
    "name": "python",
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "pygments_lexer": "ipython3",
}
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}


def stored(original: NotebookNode, executed: NotebookNode, profile: str) -> NotebookNode:
    """Return a copy of `original` with the cleaned outputs of `executed`.

    Args:
        original: the notebook as it is kept; it is left as it is.
        executed: the same notebook after a run; cells that the run added are ignored.
        profile: the profile of the run, to be recorded.

    Raises:
        ValueError: a code cell of `original` was not executed, or was different when it was.
    """
    ran = {cell["id"]: cell for cell in code_cells(executed)}
    result = copy.deepcopy(original)
    for number, cell in enumerate(code_cells(result), start=1):
        twin = ran.get(cell["id"])
        if twin is None or twin.source != cell.source:
            raise ValueError(f"cell {cell['id']} is not the one that was executed: run it again")
        cell.execution_count = number
        cell.outputs = [
            clean_output(output, number) for output in twin.outputs if not is_stderr(output)
        ]
        cell.metadata.pop("execution", None)
    for cell in result.cells:
        cell.metadata.pop("papermill", None)
    result.metadata = NotebookNode(
        kernelspec=NotebookNode(KERNEL),
        language_info=NotebookNode(LANGUAGE),
        labkit=NotebookNode(profile=profile, cells=NotebookNode(source_hashes(result))),
    )
    return result


def clean_output(output: NotebookNode, execution_count: int) -> NotebookNode:
    """Return a copy of one output without its widget view, numbered as its cell is."""
    output = copy.deepcopy(output)
    if "data" in output:
        output.data.pop(WIDGET_VIEW, None)
    if output.output_type == "execute_result":
        output.execution_count = execution_count
    return output


def is_stderr(output: NotebookNode) -> bool:
    """Say whether this output is text that was written to stderr."""
    return bool(output.output_type == "stream" and output.name == "stderr")


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells that are not empty, in their order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def source_hashes(notebook: NotebookNode) -> dict[str, str]:
    """Return {id of a code cell: SHA-256 of its source}, in the order of the cells."""
    return {
        cell["id"]: hashlib.sha256(cell.source.encode()).hexdigest()
        for cell in code_cells(notebook)
    }


def stale_cells(notebook: NotebookNode) -> list[str]:
    """Return the ids of code cells whose stored outputs are not those of their source.

    Empty when the notebook is as it was when its outputs were stored. A cell that is new, changed,
    moved, or gone since then is named, and so is one that was run out of order.
    """
    then: dict[str, Any] = notebook.metadata.get("labkit", {}).get("cells", {})
    now = source_hashes(notebook)
    order = {cell["id"]: number for number, cell in enumerate(code_cells(notebook), start=1)}
    counts = {cell["id"]: cell.get("execution_count") for cell in code_cells(notebook)}
    stale = [name for name in now if then.get(name) != now[name] or counts[name] != order[name]]
    return stale + [name for name in then if name not in now]
