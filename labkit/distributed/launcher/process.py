"""One rank as its launcher sees it: a process, a pipe, and a place for its result and its stack.

Ranks are made by a fork server, which has loaded torch already. Windows has no fork: there each
rank is a fresh Python. Small messages come through the pipe, each written in one piece, so a rank
that is frozen or killed in the middle of something cannot leave half a message, for which the
launcher would wait; the result, which may be large, is a file.
"""

import contextlib
import multiprocessing
import os
import signal
import tempfile
from itertools import takewhile
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

from labkit.distributed.launcher import worker
from labkit.distributed.launcher.world import RENDEZVOUS
from labkit.facts import cores

MESSAGES = 256
"""Taken from one rank at a time: one that talks without end must not drown the others."""
SECONDS_TO_END = 5.0


class RankProcess:
    """A rank, not started yet.

    Args:
        rank: its number.
        size: number of ranks.
        work: what `cloudpickle` made of the function and its arguments.
        folder: where ranks meet, and leave results and stacks.

    Attributes:
        rank: its number.
    """

    def __init__(self, rank: int, size: int, work: bytes, folder: Path) -> None:
        context = _context()  # starts the server, if this is the first rank of all
        self.rank, self._folder = rank, folder
        self._pipe, self._its_end = context.Pipe()
        environment = {
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(size),
            "LOCAL_WORLD_SIZE": str(size),
            RENDEZVOUS: str(folder / "rendezvous"),
        }
        threads = max(1, cores() // size)
        arguments = (self._its_end, work, environment, threads, str(folder))
        # No daemon: those may have no child processes, such as a data loader's workers.
        self._process = context.Process(target=worker.run, args=arguments, daemon=False)

    def start(self) -> None:
        """Start it, by way of the server; nothing of the kernel's memory goes along but `work`."""
        self._process.start()
        self._its_end.close()  # so that the pipe counts as closed as soon as the rank is gone

    @property
    def handles(self) -> tuple[Any, ...]:
        """What becomes ready when it has sent something, and when it has ended.

        Both are needed: what it has started may hold its end of the pipe open after it.
        """
        return self._pipe, self._process.sentinel

    def messages(self) -> tuple[list[tuple[Any, ...]], bool]:
        """Return what it has sent, without waiting, and whether it has ended after that."""
        taken: list[tuple[Any, ...]] = []
        with contextlib.suppress(EOFError, OSError):  # what a closed pipe raises
            # A process that ends between the two looks may still have sent something before: the
            # pipe is asked once more, after it is known to be gone.
            while len(taken) < MESSAGES:
                if self._pipe.poll():
                    taken.append(self._pipe.recv())
                elif self._process.is_alive() or self._pipe.poll():
                    return taken, False
                else:
                    return taken, True
            return taken, False
        return taken, True

    def tell(self, word: str) -> None:
        """Send it "hold" or "go on"."""
        with contextlib.suppress(OSError):  # it has just ended
            self._pipe.send(word)

    def result(self) -> Any:
        """Return what its function returned, once it has said that it has."""
        import cloudpickle

        with (self._folder / f"result-{self.rank}").open("rb") as file:
            return cloudpickle.load(file)

    def exit_code(self) -> int | None:
        """Return how it ended, once `messages` has said so; negative for a signal."""
        self._process.join(SECONDS_TO_END)  # its pipe closes before it is gone altogether
        code: int | None = self._process.exitcode
        return code

    def ask_for_stack(self) -> None:
        """Let it write down where it is, even inside C++."""
        if hasattr(signal, "SIGUSR1") and self._process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid or 0, signal.SIGUSR1)

    def stack(self) -> str:
        """Return where it was when it was asked or crashed, without the launcher's own frames."""
        path = self._folder / f"stack-{self.rank}"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return "\n".join(takewhile(lambda line: not _is_the_launchers(line), lines)).strip()

    def kill(self) -> None:
        """Kill it and what it has started."""
        pid = self._process.pid
        with contextlib.suppress(ProcessLookupError, PermissionError):  # all of them are gone
            if hasattr(os, "killpg") and pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    return os.killpg(pid, signal.SIGKILL)
            if pid is not None and self._process.is_alive():  # too young to lead its own group
                self._process.kill()

    def close(self) -> None:
        """Forget the process, which has been killed or has ended. It may be called again."""
        with contextlib.suppress(ValueError):  # closed before; or SIGKILL waits for a disk
            if self._process.pid is not None:
                self._process.join(SECONDS_TO_END)
                self._process.close()
        self._pipe.close()
        self._its_end.close()


def _is_the_launchers(line: str) -> bool:
    """Say whether a line of a stack is the frame that called the function."""
    return worker.__file__ in line and line.endswith(" in _work")


PRELOADED = (
    "torch._dynamo",  # every torch optimizer loads it
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "torch.distributed.pipelining",
    "torch.distributed.tensor.parallel",
)
"""What the server imports once, so that ranks need not, and share the memory of it."""


def _context() -> Any:
    """Return the fork server, started if need be, or fresh processes where there is none.

    Not plain fork, which would copy the kernel in the middle of whatever its threads do.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([worker.__name__, *PRELOADED])
    # The server imports for seconds before it learns to ignore the kernel's Interrupt. The tracker
    # comes first: its own start unblocks the signal.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    except OSError as error:
        if "too long" not in str(error):
            raise
        raise OSError(
            f"TMPDIR must be a shorter path, such as /tmp, got {tempfile.gettempdir()}: the ranks' "
            "server listens on a file below it, whose path may have some 100 characters"
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context
