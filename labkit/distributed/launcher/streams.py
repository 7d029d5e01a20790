"""Standard output and error of many ranks on one screen.

A rank's `Printer` sends what it writes, the launcher's `Screen` shows it with the rank's number. A
line may come in pieces, or go back to its start with a carriage return, by which a progress bar
moves: each piece is shown when it comes.
"""

import codecs
import io
import os
import re
import sys
import threading
from collections.abc import Callable
from typing import Any

LINE = re.compile(r"[^\r\n]+")


class Printer(io.TextIOWrapper):
    """Standard output or error of a rank, as whole as a terminal's: with `buffer` and `fileno`.

    Args:
        send: takes the kind and a text.
        kind: "stdout" or "stderr".
    """

    def __init__(self, send: Callable[..., None], kind: str) -> None:
        self._sender = _Sender(send, kind)
        super().__init__(self._sender, "utf-8", "backslashreplace", newline="", write_through=True)

    def finish(self) -> None:
        """Send the rest, and end its line."""
        self.flush()
        self._sender.finish()


class _Sender(io.BufferedIOBase):
    """The bytes under a Printer. Lines go when they are whole, the rest with `flush`."""

    def __init__(self, send: Callable[..., None], kind: str) -> None:
        self.name, self._send, self._kind, self._begun, self._open = (
            f"<{kind}>",
            send,
            kind,
            "",
            False,
        )
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._pipe: tuple[int, threading.Thread] | None = None

    def writable(self) -> bool:
        """Say yes; Python's own base class says no, and the wrapper asks."""
        return True

    def write(self, content: Any) -> int:
        """Send the lines that are whole; all of it, if it goes back to the start of a line."""
        text = self._begun + self._decoder.decode(bytes(content))
        # Not the piece of a next line: print writes its end by itself, and others print meanwhile.
        whole = len(text) if "\r" in text else text.rfind("\n") + 1
        self._begun = text[whole:]
        self._show(text[:whole])
        return len(content)

    def flush(self) -> None:
        """Send what was begun."""
        text, self._begun = self._begun, ""
        self._show(text)

    def fileno(self) -> int:
        """Return a descriptor for those that write past Python; a thread sends what comes there."""
        if self._pipe is None:
            ours, theirs = os.pipe()
            reader = threading.Thread(target=self._read, args=(ours,), daemon=True)
            reader.start()
            self._pipe = theirs, reader
        return self._pipe[0]

    def finish(self) -> None:
        """Send what came to the descriptor, and end the last line."""
        if self._pipe is not None:
            os.close(self._pipe[0])
            self._pipe[1].join(1.0)  # whoever was given it may still hold it open
        self.flush()
        if self._open:
            self._show("\n")

    def _read(self, descriptor: int) -> None:
        others = _Sender(self._send, self._kind)  # its lines end apart from those of this one
        while content := os.read(descriptor, 2**16):
            others.write(content)
        others.finish()

    def _show(self, text: str) -> None:
        if text:
            self._send(self._kind, text)
            self._open = not text.endswith("\n")


class Screen:
    """Where the launcher shows what the ranks write."""

    def __init__(self) -> None:
        self._open: tuple[str, int] | None = None  # whose line the cursor stands in
        self._returned = False  # to the start of it
        self._cut: set[tuple[str, int]] = set()  # whose line was ended because another one came

    def show(self, kind: str, rank: int, text: str) -> None:
        """Print a text of a rank, its number before each line."""
        whose, mark = (kind, rank), f"[rank {rank}] "
        if whose in self._cut and text.startswith("\n"):
            text = text[1:]
        if not text:
            return
        self._cut.discard(whose)
        goes_on = self._open == whose and text[0] not in "\r\n" and not self._returned
        if self._open not in (None, whose) and text[0] != "\r":
            self._cut.add(self._open)
            print(file=getattr(sys, self._open[0]))
        text_marked = LINE.sub(rf"{mark}\g<0>", text)
        print(text_marked[goes_on * len(mark) :], end="", file=getattr(sys, kind), flush=True)
        self._open, self._returned = None if text.endswith("\n") else whose, text.endswith("\r")
