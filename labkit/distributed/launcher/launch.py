"""`launch(function, nprocs=2)`: real processes from a notebook's cell, a script or a test.

Other launchers fork the notebook (which hangs as soon as its kernel has used a thread), need the
function in a file, take a fixed port, or return nothing. This one packs the function with
cloudpickle, so it may stand in the cell above; makes each rank from a fork server that has loaded
torch already; lets the ranks meet in a file, so no port is taken but gloo's own on loopback; and
returns what each rank returned.

A rank that fails would leave the others waiting in a collective for ever. So the first failure
ends all ranks, and the error shows what that rank itself said: its traceback, its signal, or where
it hung. For many machines use `torchrun`, which also restarts: the same function runs under both.
"""

import atexit
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator
from multiprocessing import connection
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Self

from labkit.checks import check_positive_int
from labkit.distributed.launcher.failure import Failure, RankError, first_cause, hang, how_it_ended
from labkit.distributed.launcher.process import RankProcess
from labkit.distributed.launcher.streams import Screen
from labkit.distributed.launcher.world import RankStep

GRACE = 0.3
"""Seconds in which other ranks may tell of the same failure, so that its cause can be told."""


def launch(
    function: Callable[..., Any], /, nprocs: int = 2, *, deadline: float = 300.0, **arguments: Any
) -> list[Any]:
    """Run `function(**arguments)` in `nprocs` processes and return the result of each rank.

    What the ranks print appears here with their number. In a script, call it under
    `if __name__ == "__main__":`, as for all of Python's multiprocessing. A rank ends when its
    function has: what that has registered with `atexit` does not run.

    Args:
        function: may be defined in a notebook's cell. Calls `init()` to join the others.
        nprocs: number of ranks.
        deadline: seconds after which ranks that have not ended count as hung.
        arguments: for the function, the same for each rank.

    Raises:
        RankError: a rank raised, was killed, or hung. All ranks have ended by then.
        ValueError: `nprocs` is not a positive whole number, or `deadline` not positive.
        TypeError: `function` is not callable, or it or an argument cannot be sent.
    """
    with Ranks(function, nprocs, deadline=deadline, **arguments) as ranks:
        for _ in ranks:
            pass
    return ranks.results


class Ranks:
    """Processes under way, and what they tell: `for step in Ranks(function): …`.

    They start at once. Leaving the `with` block, or `close`, ends them in any case; `live(ranks)`
    shows them. Arguments and errors are those of `launch`.

    Attributes:
        nprocs: number of ranks.
        results: what each rank returned; None for one that has not.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        /,
        nprocs: int = 2,
        *,
        deadline: float = 300.0,
        **arguments: Any,
    ) -> None:
        check_positive_int("nprocs", nprocs)
        if not deadline > 0:
            raise ValueError(f"deadline must be a positive number of seconds, got {deadline!r}")
        work = _pack(function, arguments)  # before anything starts that would have to be ended
        self.nprocs = nprocs
        self.results: list[Any] = [None] * nprocs
        self._deadline, self._limit = deadline, monotonic() + deadline
        self._held_since: float | None = None
        self._working = set(range(nprocs))
        self._returned: list[int] = []
        self._failures: list[Failure] = []
        self._error: RankError | None = None
        self._screen = Screen()
        self._processes: list[RankProcess] = []
        self._folder = Path(tempfile.mkdtemp(prefix="labkit-ranks-"))
        _under_way.add(self)  # first, so that an exit in the middle of the starts ends them as well
        try:
            for rank in range(nprocs):
                self._processes.append(RankProcess(rank, nprocs, work, self._folder))
                self._processes[rank].start()
        except BaseException:
            self.close()
            raise

    @property
    def running(self) -> bool:
        """Whether a rank still works, or has failed and `poll` has not raised that yet."""
        return bool(self._working) or self._error is not None

    def __iter__(self) -> Iterator[RankStep]:
        while self.running:
            try:
                told = self.poll(1.0)
            except KeyboardInterrupt:  # where the launcher waited says nothing to anybody
                raise KeyboardInterrupt("all ranks have ended") from None
            yield from told

    def poll(self, seconds: float) -> list[RankStep]:
        """Return what was told since the last call; wait up to `seconds` if that is nothing.

        Raises:
            RankError: a rank failed; all have ended by then, all they told was returned.
        """
        told: list[RankStep] = []
        try:
            if self._working:
                told = self._look(seconds)
        except BaseException:
            self.close()
            raise
        # What was told before the failure comes first: it may show what led to it.
        if self._error is not None and not told:
            error, self._error = self._error, None
            raise error
        return told

    def hold(self) -> None:
        """Hold each rank at its next `tell`; the time does not count towards the deadline."""
        if self._held_since is None:
            self._held_since = monotonic()
            self._tell("hold")

    def go_on(self) -> None:
        """Go on after `hold`."""
        if self._held_since is not None:
            self._limit += monotonic() - self._held_since
            self._held_since = None
            self._tell("go on")

    def close(self) -> None:
        """End all ranks at once, and remove every trace of them. It may be called again."""
        try:
            self._close()
        except KeyboardInterrupt:
            self._close()  # whoever is impatient must not leave ranks behind: finish, then obey
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # `__init__` may have refused its arguments; and when Python ends, `_end_at_exit` has been.
        if getattr(self, "_processes", None) and not sys.is_finalizing():
            self.close()

    # -- inside ------------------------------------------------------------------------------

    def _close(self) -> None:
        # All are killed before any is waited for: one that lives on would see the others fail.
        # Not those that have ended: their number may be another program's by now.
        for process in self._processes:
            if process.rank in self._working:
                process.kill()
        self._working.clear()
        while self._processes:  # an interrupt leaves in the list what is not closed yet
            self._processes[-1].close()
            self._processes.pop()
        shutil.rmtree(self._folder, ignore_errors=True)
        _under_way.discard(self)

    def _tell(self, word: str) -> None:
        for process in self._processes:
            process.tell(word)

    def _look(self, seconds: float) -> list[RankStep]:
        """Take in what there is; end all ranks if all are done, if one failed, or if time is up."""
        told = self._receive(seconds)
        if self._failures:
            # A rank that was killed takes the others' connections with it, and they raise at once.
            # Which of the news comes first here is chance: wait, and choose by their own clocks.
            until = monotonic() + GRACE
            while self._working and (left := until - monotonic()) > 0:
                told += self._receive(left)
            self._error = first_cause(self._failures, self.nprocs, self._returned)
        elif self._working and self._held_since is None and monotonic() > self._limit:
            self._error = self._hang()
        if self._error is not None or not self._working:
            self.close()
        return told

    def _receive(self, seconds: float) -> list[RankStep]:
        """Take in what the ranks have sent; note who is done and who failed."""
        working = [self._processes[rank] for rank in self._working]
        handles = {handle: process for process in working for handle in process.handles}
        ready = connection.wait(list(handles), timeout=seconds)
        told: list[RankStep] = []
        for process in {handles[handle]: None for handle in ready}:  # each once, in order
            messages, ended = process.messages()
            for message in messages:
                told += self._take(process, *message)
            # It has ended and said neither that it is done nor that it failed.
            if ended and process.rank in self._working:
                self._fail(process, 0.0, how_it_ended(process.exit_code()), process.stack())
        return told

    def _take(self, process: RankProcess, kind: str, *content: Any) -> Iterator[RankStep]:
        if kind == "step":
            yield RankStep(process.rank, *content)
        elif kind == "result":
            self._keep_result(process)
        elif kind == "error":
            self._fail(process, *content)
        else:
            self._screen.show(kind, process.rank, *content)

    def _keep_result(self, process: RankProcess) -> None:
        try:  # now, not when it is asked for: its file goes with the folder
            self.results[process.rank] = process.result()
            self._returned.append(process.rank)
        except Exception as error:
            what = f"returned what cannot be read here: {type(error).__name__}: {error}"
            self._fail(process, monotonic(), what, "")
        self._working.discard(process.rank)

    def _fail(self, process: RankProcess, when: float, what: str, trace: str) -> None:
        self._failures.append(Failure(when, process.rank, what, trace))
        self._working.discard(process.rank)
        process.kill()  # what it has started, if it is gone itself

    def _hang(self) -> RankError:
        late = [self._processes[rank] for rank in sorted(self._working)]
        for process in late:
            process.ask_for_stack()
        sleep(GRACE)  # all write at the same time
        stacks = {process.rank: process.stack() for process in late}
        return hang(stacks, self._deadline, self._returned)


def _pack(function: Callable[..., Any], arguments: dict[str, Any]) -> bytes:
    from labkit.distributed.launcher.packing import pack

    try:
        return pack((function, arguments))
    except Exception:  # pickle's own words do not say which of the arguments it was
        for name, value in {"function": function, **arguments}.items():
            try:
                pack(value)
            except Exception as error:
                raise TypeError(f"{name} cannot be sent to another process: {error}") from error
        raise


# A global, and registered when this module is imported: what is registered last is called first,
# and multiprocessing's own exit, registered by the import above, would wait for the ranks for ever.
# `weakref.finalize` would not do: its hook may have been registered by anybody before.
_under_way: "weakref.WeakSet[Ranks]" = weakref.WeakSet()


@atexit.register
def _end_at_exit() -> None:
    """End the ranks that nobody has closed."""
    for ranks in list(_under_way):
        ranks.close()
