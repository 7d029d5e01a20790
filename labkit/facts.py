"""What a result depends on besides the code: machine, versions, threads.

A figure without its machine means nothing: the same network trains four times faster on the next
laptop. So every result that labkit prints carries these facts. They never hold a host name, a user
name or a path, so a saved notebook can be shared.

Threads: one is the default for measuring. Two threads of a shared machine wait for each other at
the end of every kernel, and one busy neighbour then slows both; one thread is steady.
"""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from labkit.checks import check_positive_int

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of Binder and other containers


@dataclass(frozen=True, repr=False)
class Facts:
    """The machine and the versions behind a result. Memory is in GiB."""

    processor: str
    cores: int
    memory_gib: float
    threads: int
    instructions: str
    device: str
    python: str
    torch: str
    torchvision: str

    def __str__(self) -> str:
        return (
            f"{self.processor} · {self.cores} cores · {self.memory_gib:.0f} GiB · "
            f"{self.threads} thread{'s' if self.threads > 1 else ''} · {self.instructions} · "
            f"device {self.device} · Python {self.python} · torch {self.torch}"
        )

    __repr__ = __str__  # what a notebook shows under a cell

    def as_dict(self) -> dict[str, Any]:
        """Return the facts as a plain dictionary, for a JSON file."""
        return asdict(self)


def machine_facts() -> Facts:
    """Return the facts of this machine as they are now (threads can change, the rest does not)."""
    return Facts(
        processor=_processor(),
        cores=cores(),
        memory_gib=round(_memory_bytes() / 2**30, 1),
        threads=torch.get_num_threads(),
        instructions=instruction_set(),
        device=str(default_device()),
        python=platform.python_version(),
        torch=torch.__version__,
        torchvision=_version("torchvision"),
    )


def default_device() -> torch.device:
    """Return the CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it. A CPU never lags behind."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def instruction_set() -> str:
    """Return the vector and matrix instructions that torch uses here, like "AVX512, AMX bf16"."""
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return platform.machine() or "unknown"
    # torch offers these checks under private names only; a missing one counts as "no".
    supported = [
        label
        for check, label in (
            ("_is_vnni_supported", "VNNI int8"),
            ("_is_avx512_bf16_supported", "AVX512 bf16"),
            ("_is_amx_tile_supported", "AMX bf16"),
        )
        if getattr(torch.cpu, check, lambda: False)()
    ]
    return ", ".join([torch.backends.cpu.get_cpu_capability(), *supported])


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Pin torch to `count` threads inside the block; the old number is restored.

    Raises:
        ValueError: `count` is not a positive whole number.
    """
    check_positive_int("count", count)
    before = torch.get_num_threads()
    # torch.set_num_threads throws away the kernels that oneDNN has built, even where the number
    # stays the same. Whoever runs next builds them again: 6 % of a small step, and enough to make
    # the first arm of every round of a race look slow. So nothing is set that holds already.
    if before != count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def cores() -> int:
    """Return how many cores this process may use: a container can have fewer than its machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _memory_bytes() -> int:
    import psutil

    total: int = psutil.virtual_memory().total
    text = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.is_file() else "max"
    return min(total, int(text)) if text.isdigit() else total


@cache
def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine() or "unknown processor"
