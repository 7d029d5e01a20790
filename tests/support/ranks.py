"""What the tests on real processes share."""

import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import psutil
import pytest
import torch
import torch.distributed as dist

from labkit.distributed import RankError, init, launch

LAUNCHER = psutil.Process()
LIMIT: dict[str, Any] = {"deadline": 40}
# Seconds after a failure, by which all ranks have ended: well before the deadline, and time enough
# on cores that other tests keep busy.
END = 20.0


def running() -> set[psutil.Process]:
    """Processes below this one that do something."""
    found = set()
    for process in LAUNCHER.children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found.add(process)
        except psutil.NoSuchProcess:
            pass
    return found


def command(process: psutil.Process) -> str:
    """What was started, with its arguments; "" of a process that has ended, reaped or not."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def gone(*pids: int) -> bool:
    return not any(psutil.pid_exists(p) and alive(p) for p in pids)


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def failing(function: Callable[..., Any], nprocs: int = 2, **arguments: Any) -> str:
    """The error of a launch, all of whose ranks end in time."""
    began = time.monotonic()
    with pytest.raises(RankError) as caught:
        launch(function, nprocs, **{**LIMIT, **arguments})
    assert time.monotonic() - began < 30
    return str(caught.value)


def wait_for_the_others() -> None:
    """Stay in a collective that rank 1 never joins."""
    with init() as world:
        if world.rank != 1:
            dist.all_reduce(torch.ones(1))
        time.sleep(100)


def as_main(monkeypatch: pytest.MonkeyPatch, **attributes: Any) -> ModuleType:
    """Put a made-up main module in the place of pytest's."""
    main = ModuleType("__main__")
    main.__dict__.update(attributes)
    monkeypatch.setitem(sys.modules, "__main__", main)
    return main
