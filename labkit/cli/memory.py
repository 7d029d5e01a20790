"""Watch the processes that this one starts: their memory while they run, and that all of them end.

The memory of a notebook is that of its kernel and of everything the kernel starts. Five times a
second, and after each cell, the resident set sizes of all of them are added up. Linux keeps the
highest size that each process ever had, so that no short peak is missed there; elsewhere it is the
size at that moment.
Pages that processes share are counted once for each, so the figure is an upper bound.
"""

import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

SECONDS_BETWEEN_SAMPLES = 0.2
SECONDS_TO_END = 3.0


class ProcessWatch:
    """Sample all descendants of this process while the `with` block runs.

    Attributes:
        peak_mib: largest sum of resident memory that was seen, in MiB.
    """

    def __init__(self) -> None:
        self.peak_mib = 0.0
        self._seen: set[psutil.Process] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="process watch", daemon=True)

    def __enter__(self) -> Self:
        self._before = set(psutil.Process().children(recursive=True))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        if error is not None:
            self.end_survivors()

    def _watch(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_SAMPLES):
            self.sample()

    def sample(self) -> None:
        """Look at all processes now."""
        with self._lock:
            known = {process for process in self._seen if process.is_running()}
            new = set(psutil.Process().children(recursive=True)) - self._before
            self._seen = known | new
            self.peak_mib = max(self.peak_mib, sum(map(_resident, self._seen)) / 2**20)

    def end_survivors(self) -> list[str]:
        """Kill what is still running of the processes seen; return their names, at best none."""
        _, alive = psutil.wait_procs(filter(_runs, self._seen), timeout=SECONDS_TO_END)
        names = []
        for process in filter(_runs, alive):
            names.append(f"{process.name()} ({process.pid})")
            process.kill()
        return names


def _runs(process: psutil.Process) -> bool:
    """Say whether a process does something; one that ended but was not collected does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _resident(process: psutil.Process) -> int:
    """Return the highest resident memory so far in bytes, or that of now, or 0 if it has ended."""
    try:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
