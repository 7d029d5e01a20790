"""`labkit run`: execute notebooks, with a line for each cell, and keep what they printed.

papermill sets the notebook's one parameter, `profile`, and writes the executed copy after every
cell, so a failed run can be looked at. nbclient below it gives the hooks for the progress lines.
Around both stand two guards that the notebooks promise to pass: the peak memory of everything that
the kernel starts, and that no process outlives the run.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import CellControlSignal
from nbformat import NotebookNode
from papermill.exceptions import PapermillException, PapermillExecutionError

from labkit.cli import UsageError, bounded, foreign, places, store
from labkit.cli.memory import ProcessWatch
from labkit.files import atomic_path, results_folder
from labkit.lessons import minutes
from labkit.table import one_line

# Seconds that one cell may take, for each profile.
PROFILES = {"smoke": 120, "quick": 900, "full": 14_400}
LONGEST = 500
"""Characters of an error that is printed; all of it stands in the page."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `labkit run` takes."""
    parser.add_argument("notebooks", nargs="+", help="numbers, names, paths, or all")
    parser.add_argument(
        "--profile",
        default="quick",
        help="smoke: seconds, for tests; quick: what a learner gets (default); full: more data",
    )
    parser.add_argument(
        "--store", action="store_true", help="put the outputs into the notebook itself"
    )


def main(arguments: argparse.Namespace) -> int:
    """Run all notebooks that were named; go on after a failure, and return 1 at the end."""
    if arguments.profile not in PROFILES:
        raise UsageError(f"no profile {arguments.profile!r}; there are: {', '.join(PROFILES)}")
    notebooks = places.find_notebooks(arguments.notebooks, places.notebooks())
    for path in notebooks:
        read(path)
    try:
        with terminate_interrupts():
            passed = [
                run(path, arguments.profile, arguments.store, name)
                for path, name in zip(notebooks, names_of_results(notebooks), strict=True)
            ]
    except OSError as error:
        print(f"labkit run: {error}", file=sys.stderr)
        return 1
    return 0 if all(passed) else 1


def names_of_results(notebooks: list[Path]) -> list[str]:
    """Return the names of the results: those of the notebooks, with numbers where two are alike."""
    names: list[str] = []
    for path in notebooks:
        tries = (f"{path.stem}{end}" for end in ("", *(f"-{n}" for n in range(2, 10**6))))
        names.append(next(name for name in tries if name not in names))
    return names


def read(notebook: Path) -> NotebookNode:
    """Read a notebook that can be run; see `foreign.read`.

    Raises:
        UsageError: the file is no notebook, or has no cell for the parameters.
    """
    content = foreign.read(notebook)
    if not any("parameters" in cell.metadata.get("tags", []) for cell in content.cells):
        raise UsageError(f"{notebook.name}: no cell has the tag 'parameters'")
    return content


def run(notebook: Path, profile: str, keep: bool = False, name: str = "") -> bool:
    """Execute one notebook, print progress, and say whether it passed.

    The executed copy goes to `results/NAME.PROFILE.ipynb`; of a failed run also an HTML page.

    Args:
        notebook: the notebook; its parameters cell has the tag "parameters".
        profile: a key of `PROFILES`.
        keep: store the cleaned outputs in `notebook` when the run passed, and note how long it took
            if it is one of the project's.
        name: of the results; that of the notebook when left out.
    """
    before = notebook.read_bytes()
    original = read(notebook)
    timed = keep and notebook.parent == places.notebooks()
    output = results_folder() / f"{name or notebook.stem}.{profile}.ipynb"
    output.parent.mkdir(parents=True, exist_ok=True)
    os.environ.update(LABKIT_PROFILE=profile, LABKIT_RESULTS=str(output.parent))
    print(f"{notebook.name} ({profile})", flush=True)
    # Before the run, as the notebook itself does: a machine is slower when it has got warm.
    step = minutes.reference_step() if timed else 0.0
    start = time.monotonic()
    with ProcessWatch() as watch:
        progress = Progress(original, watch)
        error = execute(original, output, profile, progress, notebook.parent)
    left = watch.end_survivors()
    if error is None and left:
        error = f"processes outlived the notebook: {', '.join(left)}"
    if error is None and keep:
        error = keep_outputs(original, notebook, output, profile, before)
    if error is None and timed:
        took = minutes.StoredRun(round(progress.seconds, 1), float(f"{step:.3g}"))
        minutes.store_run(notebook.stem[:2], profile, took)
    if error is not None:
        page = write_html(output)
        print(f"FAILED {notebook.name}: {error}\n  see {page}", file=sys.stderr, flush=True)
        return False
    print(
        f"{notebook.stem}: {progress.done} cells in {time.monotonic() - start:.1f} s, "
        f"peak memory {watch.peak_mib:.0f} MiB, written to {output}",
        flush=True,
    )
    return True


class Progress:
    """Hooks of nbclient: print a line after each cell, and remember which one is running."""

    def __init__(self, notebook: NotebookNode, watch: ProcessWatch) -> None:
        self.watch = watch
        self.total = len(store.code_cells(notebook))
        self.done = 0
        self.seconds = 0.0
        self.current = "none"
        self._start = 0.0

    def started(self, cell: NotebookNode, **_: Any) -> None:
        """Note the cell that starts."""
        self.current = cell["id"]
        self._start = time.monotonic()

    def finished(self, cell: NotebookNode, **_: Any) -> None:
        """Print the number, the id and the seconds of the cell that ended, and add them up."""
        self.watch.sample()
        if "injected-parameters" in cell.metadata.get("tags", []):
            return
        self.done += 1
        seconds = time.monotonic() - self._start
        self.seconds += seconds
        warned = " (wrote to stderr)" if any(map(store.is_stderr, cell.outputs)) else ""
        print(f"  {self.done:3}/{self.total} {cell['id']:32} {seconds:7.1f} s{warned}", flush=True)


def execute(
    notebook: NotebookNode, output: Path, profile: str, progress: Progress, folder: Path
) -> str | None:
    """Execute `notebook` into `output`; return None, or the cell and the error in one line."""
    try:
        papermill.execute_notebook(
            notebook,
            str(output).replace("{", "{{").replace("}", "}}"),  # papermill fills in parameters
            parameters={"profile": profile},
            engine_name=bounded.NAME,
            kernel_name="python3",
            language="python",
            cwd=folder,
            progress_bar=False,
            execution_timeout=PROFILES[profile],
            iopub_timeout=60,
            store_widget_state=False,  # a page would show dead widgets in place of the pictures
            extra_arguments=["--log-level=50"],  # errors of cells come as outputs, not as a log
            on_cell_execute=progress.started,
            on_cell_executed=progress.finished,
        )
    except PapermillExecutionError as error:
        name = error.ename.replace("_IncompleteInputError", "SyntaxError")  # Python 3.13's
        return f"cell {progress.current}: {one_line(f'{name}: {error.evalue}')[:LONGEST]}"
    except (PapermillException, CellControlSignal, RuntimeError, TimeoutError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"cell {progress.current}: {one_line(first_line)[:LONGEST]}"
    return None


def keep_outputs(
    original: NotebookNode, notebook: Path, output: Path, profile: str, before: bytes
) -> str | None:
    """Store the outputs in the notebook; return None, or why they were not stored."""
    if notebook.read_bytes() != before:
        return "the notebook was changed during the run, its outputs were not stored"
    result = store.stored(original, nbformat.read(output, as_version=4), profile)
    with atomic_path(notebook) as temporary:
        nbformat.write(result, temporary)
    return None


def write_html(output: Path) -> Path:
    """Write an executed notebook as a page beside it; return the page (or the notebook)."""
    from nbconvert import HTMLExporter

    if not output.is_file():
        return output
    page = output.with_suffix(".html")
    body, _ = HTMLExporter().from_filename(str(output))
    with atomic_path(page) as temporary:
        temporary.write_text(body, encoding="utf-8")
    return page


@contextmanager
def terminate_interrupts() -> Iterator[None]:
    """Let SIGTERM end a run as Ctrl-C does, so that the kernel is shut down in both cases."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
