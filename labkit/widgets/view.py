"""The browser's side of a live view: one widget, one binary message an update.

Of the ways to show moving curves in a notebook, pictures cost most: drawing with matplotlib takes
some 30 ms an update in the training thread, sending the new rows to a canvas less than one. So the
browser draws. Each update is one message that carries the new rows as float32 and the status as a
small dictionary.
"""

from collections.abc import Callable, Sequence
from typing import Any

import traitlets

from labkit.table import Table
from labkit.watch import History, Panel, Point, Status
from labkit.widgets.quiet_widget import QuietWidget, source


def _as_bytes(history: bytearray, _widget: object) -> bytes:
    return bytes(history)  # a copy, since the training thread goes on appending


def as_message(status: Status, table: Table | None, state: str, error: str = "") -> dict[str, Any]:
    """Return what the browser shows beside the curves, in types that JSON knows."""
    notes = (status.note, table.note if table else "")
    progress = status.progress
    return {
        "state": state,
        "error": error,
        "progress": None if progress is None else min(max(float(progress), 0.0), 1.0),
        "minutes_left": status.minutes_left,
        "headers": table.headers if table else (),
        "table": table.rows if table else (),
        "note": " ".join(note for note in notes if note),
    }


class LiveView(QuietWidget):
    """The widget. `update` may be called from any thread, but from one at a time.

    Attributes:
        rows: all points so far.
        commands: {kind of a message from the browser: what is done}.
    """

    _esm = source("look.js", "plot.js", "scatter.js", "live.js")
    _css = source("look.css", "live.css")
    panels: "traitlets.List[Any]" = traitlets.List().tag(sync=True)
    status: "traitlets.Dict[str, Any]" = traitlets.Dict().tag(sync=True)
    history = traitlets.Any().tag(sync=True, to_json=_as_bytes)

    def __init__(self, panels: Sequence[Panel]) -> None:
        self.rows = History()
        self.commands: dict[str, Callable[[], None]] = {"resend": self.resend}
        super().__init__(
            panels=[panel.as_dict() for panel in panels],
            status=as_message(Status(0.0), None, "running"),
            history=self.rows.data,
        )

    def update(self, points: Sequence[Point], status: dict[str, Any]) -> None:
        """Send new points and the status (see `as_message`) to the browser, in one message."""
        first = len(self.rows)
        new = self.rows.extend(points)
        self.remember(status=status)
        self._post(first, new)

    def resend(self) -> None:
        """Send all rows again: a browser that missed a message has asked for them."""
        self._post(0, bytes(self.rows.data))

    def _post(self, first: int, rows: bytes) -> None:
        self.send({"kind": "update", "first": first, "status": self.status}, buffers=[rows])

    def receive(self, message: dict[str, Any]) -> None:
        """Do what a button asks for."""
        command = self.commands.get(str(message.get("kind")))
        if command is not None:
            command()
