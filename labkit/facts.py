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
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from labkit.checks import check_positive_int

# Where Linux keeps the limits of containers, and in which control groups this process is.
CGROUPS, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


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
        if getattr(torch.cpu, check, lambda: False)() and not ("int8" in label and int8_saturates())
    ]
    return ", ".join([torch.backends.cpu.get_cpu_capability(), *supported])


@cache
def int8_saturates() -> bool:
    """Say whether the int8 kernels here lose large sums: False where there are no such kernels.

    VNNI adds four products of 8 bits into 32 bits. Without it (laptops until about 2020, AMD until
    Zen 3), two products are added in 16 bits, and a sum above 32,767 becomes 32,767. Two products
    of 255 x 127 are 64,770. What a processor is called does not tell which kernel runs, so one is
    run, on the largest numbers there are, and compared with the sum by hand.
    """
    inputs, outputs, largest = 64, 16, (255, 127)
    x = torch.full((8, inputs), largest[0], dtype=torch.uint8)
    weight = torch.full((outputs, inputs), largest[1], dtype=torch.int8)
    one, zero = torch.ones(outputs), torch.zeros(outputs, dtype=torch.int32)
    try:
        packed = torch.ops.onednn.qlinear_prepack(weight, list(x.shape))
        sums = torch.ops.onednn.qlinear_pointwise(
            x, 1.0, 0, packed, one, zero, None, 1.0, 0, torch.float32, "none", [], ""
        )
    except (AttributeError, RuntimeError):  # a build of torch without oneDNN, or not for x86
        return False
    return bool((sums != inputs * largest[0] * largest[1]).any())


SAFE_CHANNELS = 8


def breaks_strided_1x1() -> bool:
    """Say whether torch's convolutions corrupt memory here, for one kind of layer.

    Where oneDNN has kernels of 256 bits only (AVX2), the backward pass of a convolution of 1x1 with
    a stride and 2 to 7 input channels, in fp32 and channels_last, writes past its end. From
    `SAFE_CHANNELS` on all is well. Source: oneDNN's issue 6035.
    """
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return False
    wide = "AVX512" in torch.backends.cpu.get_cpu_capability()
    return not (wide and torch.ops.mkldnn._is_mkldnn_bf16_supported())


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
    """Return how many cores this process may use: a container can have fewer than its machine.

    What a limit on processor time leaves is rounded down, as a thread too many is stopped again and
    again: half a processor is one core, and so are one and a half.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    for group in _control_groups("cpu"):
        for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):  # version 2, and 1
            numbers = [number for name in files for number in _numbers(group / name)]
            if len(numbers) == 2 and min(numbers) > 0:  # no limit is "max", or -1
                allowed = min(allowed, numbers[0] // numbers[1])
    return max(1, allowed)


def _memory_bytes() -> int:
    import psutil

    limits = [
        number
        for group in _control_groups("memory")
        for name in ("memory.max", "memory.limit_in_bytes")
        for number in _numbers(group / name)
    ]
    return min([int(psutil.virtual_memory().total), *limits])


def _control_groups(controller: str) -> list[Path]:
    """The folders of the groups that this process is in: its own, and those around it.

    Version 2 has one tree for all controllers, version 1 a tree for each or for some together. A
    container may see its own group as the top of the tree, under a path that only its host knows.
    """
    folders = []
    for line in MEMBERSHIP.read_text().splitlines() if MEMBERSHIP.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        tops = {CGROUPS / controllers, CGROUPS / controller} if controllers else {CGROUPS}
        inside = PurePosixPath(path.lstrip("/"))
        folders += [top / part for top in tops for part in (inside, *inside.parents)]
    return folders


def _numbers(file: Path) -> list[int]:
    """The whole numbers in a file, none if it cannot be read."""
    try:
        return [int(word) for word in file.read_text().split() if word.lstrip("-").isdigit()]
    except OSError:
        return []


@cache
def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine() or "unknown processor"
