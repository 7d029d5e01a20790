"""Watch training while it runs: `run = live(race)`, and `await run` in the next cell.

A cell that trains blocks the kernel, and a blocked kernel hears no button. So training goes on in
a thread of its own and the cell ends at once; Pause and Stop only set a flag that the thread reads
between two units of work. The next cell waits with `await`, which lets the kernel go on listening;
the kernel's own Interrupt becomes a polite stop. Stopped is not an error: the race keeps what it
has measured, and the cell can be run again.

Colab shows nothing that a thread sends until another cell runs: use `background=False` there.
"""

import asyncio
import atexit
import threading
import weakref
from collections.abc import Generator
from contextvars import copy_context
from functools import partial
from time import perf_counter
from typing import Any

from IPython.core.getipython import get_ipython
from IPython.display import DisplayHandle, display

from labkit.facts import threads
from labkit.table import Table
from labkit.watch import Feed, ProcessFeed, Watched, feed
from labkit.widgets.style import Picture
from labkit.widgets.throttle import Throttle
from labkit.widgets.twin import twin
from labkit.widgets.view import LiveView, as_message

SHORTEST, LONGEST = 1 / 6, 1 / 4
"""Seconds between two updates: six a second, four if they are dear."""
LONGEST_TABLE = 15.0
"""Seconds between two tables. Working one out means resampling all rounds thousands of times: of a
long race that takes a second."""

_PLACEHOLDER = "Live view: run this notebook to see it move."
_current: "weakref.ref[LiveRun] | None" = None


def live(thing: object, *, background: bool = True) -> "LiveRun":
    """Start `thing` and show its curves while it works; returns at once.

    Only one run works at a time, because two would disturb each other's times: one that still
    works, for example from the same cell before, is stopped first.

    Args:
        thing: a Race, a Training, a Tradeoff, Ranks, or any Feed.
        background: False works in the cell, which then ends when the work does. For Colab.

    Returns:
        The run: `await` it, or call its `wait`, `stop`, `pause` and `resume`.

    Raises:
        TypeError: `thing` cannot be shown.
    """
    global _current
    source = feed(thing)
    old = _current() if _current is not None else None
    if old is not None:
        old.stop()
        old.join()
    run = LiveRun(source)
    _current = weakref.ref(run)
    run.show()
    run.start(background)
    return run


class LiveRun:
    """Work under way.

    Attributes:
        state: "running", "paused", "stopped", "finished" or "failed".
        error: what the work raised, or None.
        picture: the static twin; None until the work is over.
        results: what a watched iterable, such as a Training, has given so far. Empty for what keeps
            its results itself, such as a Race.
    """

    def __init__(self, source: Feed) -> None:
        self.state = "running"
        self.error: BaseException | None = None
        self.view = LiveView(source.panels)
        self.view.commands |= {"pause": self.pause, "resume": self.resume, "stop": self.stop}
        self._feed = source
        self.results: list[Any] = source.results if isinstance(source, Watched) else []
        self._table: Table | None = None
        self._stop, self._go = threading.Event(), threading.Event()
        self._go.set()
        self._thread: threading.Thread | None = None
        self._handle: DisplayHandle | None = None
        self.picture: Picture | None = None
        self._rows_throttle = Throttle(0.01, SHORTEST, LONGEST)
        self._table_throttle = Throttle(0.01, SHORTEST, LONGEST_TABLE)

    # -- what the reader calls ---------------------------------------------------------------

    def pause(self) -> None:
        """Hold the work after the unit it is in."""
        self._go.clear()

    def resume(self) -> None:
        """Go on after a pause."""
        self._go.set()

    def stop(self) -> None:
        """End the work after the unit it is in. What was measured is kept."""
        self._stop.set()
        self._go.set()

    def wait(self) -> None:
        """Block until the work is over; an interrupt stops it politely.

        Raises:
            Exception: what the work itself raised.
        """
        try:
            self.join()
        except KeyboardInterrupt:
            self.stop()
            self.join()
        self._close()

    def __await__(self) -> Generator[Any, None, None]:
        return self._wait().__await__()

    def __repr__(self) -> str:
        return f"live run, {self.state}"

    # -- inside ------------------------------------------------------------------------------

    def show(self) -> None:
        """Display the live view; outside Jupyter there is nothing to display it in."""
        if get_ipython() is None:
            return
        bundle = {**self.view.view_bundle, "text/plain": _PLACEHOLDER}
        self._handle = display(bundle, raw=True, display_id=True)

    def start(self, background: bool) -> None:
        """Begin the work, in a thread or here."""
        if background:
            # In the cell's context, so that what the thread displays belongs to the cell.
            work = partial(copy_context().run, self._work)
            self._thread = threading.Thread(target=work, name="labkit-live", daemon=True)
            self._thread.start()
        else:
            self._work()
            self._close()

    def join(self) -> None:
        """Wait for the thread in short sleeps, so that an interrupt gets through everywhere."""
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(0.1)

    async def _wait(self) -> None:
        try:
            while self._thread is not None and self._thread.is_alive():
                await asyncio.sleep(0.05)
        except (KeyboardInterrupt, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()  # the cancelling is dealt with here
            self.stop()
            self.join()
        self._close()

    def _close(self) -> None:
        """Put the twin into the notebook again, and raise what the work raised."""
        # The thread has done so already, but a runner such as nbclient only takes in what is
        # sent while one of its cells waits.
        self._refresh()
        if self.error is not None:
            raise self.error

    def _work(self) -> None:
        # Held over all the work: to change it for each unit would make torch build its kernels
        # anew, at the cost of whoever comes first in a unit.
        count = getattr(self._feed, "thread_count", 1)
        for part in (self._loop, self._end_processes, self._finish):
            try:
                with threads(count):
                    part()
            except KeyboardInterrupt:
                self.state = "stopped"
            except Exception as error:
                self.state, self.error = "failed", self.error or error

    def _loop(self) -> None:
        while not self._stop.is_set():
            if not self._go.is_set():
                self._hold()
            elif not self._feed.advance():
                self.state = "finished"
                return
            elif self._rows_throttle.due():
                self._update()
        self.state = "stopped"

    def _hold(self) -> None:
        self.state = "paused"
        if isinstance(self._feed, ProcessFeed):
            self._feed.hold()
        self._update()
        self._go.wait()
        self.state = "running"
        if isinstance(self._feed, ProcessFeed) and not self._stop.is_set():
            self._feed.go_on()
        self._update()

    def _end_processes(self) -> None:
        if isinstance(self._feed, ProcessFeed):
            self._feed.close()

    def _update(self, last: bool = False) -> None:
        began = perf_counter()
        if last or self._table_throttle.due():
            self._table = self._feed.table()
            self._table_throttle.done(began)
        began = perf_counter()
        error = "" if self.error is None else f"{type(self.error).__name__}: {self.error}"
        message = as_message(self._feed.status(), self._table, self.state, error)
        self.view.update(self._feed.rows(), message)
        self._rows_throttle.done(began)

    def _finish(self) -> None:
        self._update(last=True)
        for name in ("pause", "resume", "stop"):  # the widget lives on; the run need not
            del self.view.commands[name]
        self.picture = twin(self._feed.panels, self.view.rows, self._table, self._headline())
        self._refresh()

    def _headline(self) -> str:
        shown = self.view.status
        known = self.state != "finished" and shown["progress"] is not None
        where = f" at {shown['progress']:.0%}" if known else ""
        what = f": {shown['error'].splitlines()[0]}" if shown["error"] else ""
        return f"{self.state.capitalize()}{where}{what}. {self._feed.status().note}".strip()

    def _refresh(self) -> None:
        """Replace the live view by its twin, which still shows when no kernel runs."""
        if self._handle is not None and self.picture is not None:
            data, metadata = self.picture.bundle()
            self._handle.update(data, raw=True, metadata=metadata)


@atexit.register
def _stop_at_exit() -> None:
    """End the work before Python takes the interpreter down under a thread that is in torch."""
    run = _current() if _current is not None else None
    if run is not None:
        run.stop()
        run.join()
