"""An engine for papermill that ends a notebook when it holds too much output.

A loop that prints for ever fills memory and disk at 40 MB a second long before its time is over. So
what the cells hold is added up as it comes; what a cell clears, such as the frames of a progress
bar, does not count.
"""

from typing import Any

from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines
from papermill.log import logger

NAME = "labkit"
MOST_MIB = 20
"""Of output, in a whole notebook: forty times what one of the project's holds."""
AROUND = 300
"""Characters that the file takes for each output, besides what it shows."""
SHOWN = ("stream", "display_data", "execute_result", "error")


class TooMuchOutput(RuntimeError):
    """A notebook holds more than `MOST_MIB` of output."""


class BoundedClient(PapermillNotebookClient):  # type: ignore[misc]
    """Runs the cells, and stops at the message that is too much."""

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options)
        self.held: dict[int, int] = {}  # characters of each cell
        self.full = False

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        """Take in a message of the kernel, unless there is too much already."""
        if msg["msg_type"] in SHOWN:
            if self.clear_before_next_output or not cell.outputs:
                self.held[cell_index] = 0
            self.held[cell_index] += AROUND + _size(msg["content"])
            self.full = sum(self.held.values()) > MOST_MIB * 2**20
        if not self.full:
            return super().process_message(msg, cell, cell_index)
        self.task_poll_for_reply.cancel()  # as if the kernel had died: it will be ended
        return None

    def execute(self, **options: Any) -> Any:
        """Run all cells.

        Raises:
            TooMuchOutput: they hold too much.
        """
        try:
            return super().execute(**options)
        except DeadKernelError:
            if self.full:
                raise TooMuchOutput(f"more than {MOST_MIB} MiB of output") from None
            raise


def _size(content: object) -> int:
    """Return how many characters a message holds."""
    if isinstance(content, dict):
        return sum(map(_size, content.values()))
    if isinstance(content, list):
        return sum(map(_size, content))
    return len(content) if isinstance(content, str) else 0


class BoundedEngine(Engine):  # type: ignore[misc]
    """What papermill calls; `NAME` is the name that it knows it by."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        *,
        start_timeout: int,
        execution_timeout: int,
        input_path: object,
        **options: Any,
    ) -> None:
        """Run the notebook that `nb_man` holds."""
        times = {"timeout": execution_timeout, "startup_timeout": start_timeout}
        BoundedClient(nb_man, kernel_name=kernel_name, log=logger, **times, **options).execute()


papermill_engines.register(NAME, BoundedEngine)
