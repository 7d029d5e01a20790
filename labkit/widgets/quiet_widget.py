"""What both widgets share: how their browser side is put together, and quiet synced traits."""

from contextvars import copy_context
from pathlib import Path
from typing import Any

import anywidget

VIEW_TYPE = "application/vnd.jupyter.widget-view+json"


def source(*names: str) -> str:
    """Return the files of this folder joined into one: a widget's script must be one module."""
    folder = Path(__file__).parent
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


class QuietWidget(anywidget.AnyWidget):
    """A widget that sends messages of its own instead of one for each trait.

    The synced traits are what a page gets when it is loaded again. They follow the messages
    without a word, so that nothing is sent twice.
    """

    def __init__(self, **traits: Any) -> None:
        self._cell = copy_context()
        super().__init__(**traits)
        self.on_msg(lambda _widget, message, _buffers: self.receive(message))

    def receive(self, message: dict[str, Any]) -> None:
        """Do what a message from the browser asks for."""
        raise NotImplementedError

    def _send(self, message: dict[str, Any], buffers: Any = None) -> None:
        # ipykernel 7.4 hands the browser's answers to the subshell that the last message was sent
        # from. Sent by another thread, or in answer to a button, that is the subshell of the page
        # as it was; once the page has been loaded again it is gone, and answers are lost without a
        # word. Sent as if by the cell that made the widget, they always find the main shell.
        self._cell.copy().run(super()._send, message, buffers)

    def remember(self, **traits: Any) -> None:
        """Change synced traits without telling the browser."""
        self._trait_values.update(traits)

    @property
    def view_bundle(self) -> dict[str, Any]:
        """The mimebundle entry that makes a front end show this widget."""
        view = {"version_major": 2, "version_minor": 1, "model_id": self.model_id}
        return {VIEW_TYPE: view}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"  # without an address, which changes with every run
