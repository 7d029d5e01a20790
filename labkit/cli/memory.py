"""Watch the processes that this one starts: their memory while they run, and that all of them end.

The memory of a notebook is that of its kernel and of everything the kernel starts. Five times a
second, and after each cell, all of them are added up. Pages that processes share, such as torch's
own code, lie in memory once: on Linux the sum takes each process's private pages and the largest
shared part; elsewhere shared pages count for each process, and the sum is an upper bound. Linux
also keeps the highest size that each process ever had, so no short peak of one process is missed.
"""

import threading
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Self

import psutil

SECONDS_BETWEEN_SAMPLES = 0.2
SECONDS_TO_END = 3.0


class ProcessWatch:
    """Sample all descendants of this process while the `with` block runs.

    Attributes:
        peak_mib: most memory that all of them, or one alone, were seen to take, in MiB.
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
            highest = max(map(_highest, self._seen), default=0)
            # A process that forks between two looks has its pages counted twice: once as private,
            # once as shared with its child. A second reading at once does not see that fork.
            together = min(_together(self._seen), _together(self._seen))
            self.peak_mib = max(self.peak_mib, together / 2**20, highest / 2**20)

    def end_survivors(self) -> list[str]:
        """Kill what is still running of the processes seen; return their names, at best none."""
        deadline = monotonic() + SECONDS_TO_END
        while any(map(_runs, self._seen)) and monotonic() < deadline:
            sleep(0.05)
        names = []
        for process in filter(_runs, self._seen):
            names.append(f"{process.name()} ({process.pid})")
            process.kill()
        return names


def _runs(process: psutil.Process) -> bool:
    """Say whether a process does something; one that ended but was not collected does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _together(processes: set[psutil.Process]) -> int:
    """Return the bytes of all processes, with what they share counted once."""
    parts = [_parts(process) for process in processes]
    return sum(private for private, _ in parts) + max((shared for _, shared in parts), default=0)


def _parts(process: psutil.Process) -> tuple[int, int]:
    """Return the private and the shared bytes that a process has in memory now."""
    sizes = _proc(process, "smaps_rollup")
    if "Rss" in sizes:
        private = sizes["Private_Clean"] + sizes["Private_Dirty"]
        return private, sizes["Rss"] - private
    try:
        return int(process.memory_info().rss), 0
    except psutil.Error:
        return 0, 0


def _highest(process: psutil.Process) -> int:
    """Return the largest size of a process so far in bytes, where Linux tells, else 0."""
    return _proc(process, "status").get("VmHWM", 0)


def _proc(process: psutil.Process, file: str) -> dict[str, int]:
    """Return the sizes in bytes that a file of Linux's /proc lists; none if there is no such."""
    try:
        lines = Path(f"/proc/{process.pid}/{file}").read_text().splitlines()
    except OSError:
        return {}
    words = [line.split() for line in lines if line.endswith(" kB")]
    return {label.rstrip(":"): int(size) * 1024 for label, size, _ in words}
