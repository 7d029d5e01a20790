"""Who am I among the processes? `with init() as world:` answers, wherever the function runs.

A distributed program is one program that runs many times. Each copy, a *rank*, must learn three
things: its own number, how many ranks there are, and where they meet (the *rendezvous*). Launchers
tell this through environment variables. `init` reads those of `labkit.distributed.launch` or of
`torchrun`; with neither, the function is simply alone: a world of one. So the same file runs as
it is in a notebook's cell, as `python train.py`, as `torchrun --nproc-per-node 2 train.py`, and on
many machines with `--nnodes`.

Tensors travel by gloo on CPUs (TCP) and by NCCL on CUDA devices, one rank a device.
"""

import atexit
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from labkit.distributed.launcher.restart import fresh_store

RENDEZVOUS = "LABKIT_RENDEZVOUS"
"""Environment variable: the file in which ranks of `launch` meet."""
PATIENCE = timedelta(days=30)
"""How long a rank of `launch` waits for the others: the launcher knows when to give up."""
INTERFACE = "GLOO_SOCKET_IFNAME"
"""Environment variable: the network interface that gloo listens on."""
GRACE = 0.2
"""Seconds that a program waits at its end for gloo's threads, if it has joined others."""
_worlds = count()
"""Numbers for the worlds that this process joins; all ranks of `launch` join equally many."""
_left: list[object] = []
"""Groups that this process has left, so that no model's end frees one: that waits for gloo's
threads, and one of them may be waiting for Python, to drop a hook. Neither would ever go on."""


@atexit.register
def _let_threads_finish() -> None:
    """Wait a moment, if there was a group, while Python still runs.

    A thread of gloo's tells the others that a sum is done before it has dropped the tensors. On a
    busy machine it may come to that last, and one that asks for Python when Python is gone aborts
    the process (SIGABRT). torch has no call that waits for these threads.
    """
    if _left:
        time.sleep(GRACE)


@dataclass(frozen=True)
class World:
    """This process among all.

    Attributes:
        rank: this process's number, from 0.
        size: how many processes there are.
        device: where this rank computes.
    """

    rank: int
    size: int
    device: torch.device


class RankStep(NamedTuple):
    """What a rank told of a step; see `tell`. `seconds` is since the rank told of one before."""

    rank: int
    step: int
    loss: float
    steps: int | None
    bytes_sent: int
    waiting: float
    seconds: float


def place(group: dist.ProcessGroup | None = None) -> tuple[int, int]:
    """Return this rank's number in a group (all, when None), and how many are in it.

    Raises:
        ValueError: this process has joined no others.
    """
    if not dist.is_initialized():
        raise ValueError("this needs other ranks: call it inside of `with init():`")
    return dist.get_rank(group), dist.get_world_size(group)


@contextmanager
def init() -> Iterator[World]:
    """Join the other ranks for the length of a `with` block, and leave in good order.

    Yields:
        The world as this rank sees it. `torch.distributed` is ready to use.

    Raises:
        RuntimeError: the other ranks did not come in time.
        ValueError: the launcher's environment variables contradict each other, or the ranks are
            on several machines and GLOO_SOCKET_IFNAME does not name the interface to use.
    """
    rank, size = _number("RANK", 0), _number("WORLD_SIZE", 1)
    if not 0 <= rank < size:
        raise ValueError(f"RANK must be from 0 to WORLD_SIZE - 1, got {rank} of {size}")
    device = _device(_number("LOCAL_RANK", 0), _number("LOCAL_WORLD_SIZE", size))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    # The environment, not arguments: the reader's function is the same under every launcher.
    with _join(backend, rank, size):
        try:
            dist.barrier()  # a rank that exchanges nothing must not leave before all have come
            yield World(rank, size, device)
        finally:  # after an error as well: whoever catches it may join again
            _left.extend(dist.distributed_c10d._world.pg_map)  # keeps all alive, see there
            dist.destroy_process_group()


@contextmanager
def _join(backend: str, rank: int, size: int) -> Iterator[None]:
    """Make the process group by what the environment says; gloo's listeners as well."""
    if RENDEZVOUS not in os.environ and {"WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys():
        with _torchruns_interface(size):
            found, _, _ = next(rendezvous("env://"))  # where torchrun's variables say
            # Left to itself, `init_process_group` would take what dead ranks have written there.
            meeting = fresh_store(found, rank, size)
            dist.init_process_group(backend, store=meeting, rank=rank, world_size=size)
            yield
        return
    store: Any
    # A file and not a port: nobody else on the machine can meet here, or take the place.
    if RENDEZVOUS in os.environ:
        # Each time another one: the file of a world that has ended holds its dead addresses.
        name = f"{os.environ[RENDEZVOUS]}-{next(_worlds)}"
        store = dist.FileStore(name, size)  # type: ignore[attr-defined]
    elif size == 1:
        store = dist.HashStore()  # type: ignore[attr-defined]
    else:
        raise ValueError(f"WORLD_SIZE is {size}, but MASTER_ADDR is not set: start with torchrun")
    store.set_timeout(PATIENCE)
    with _loopback_only():
        dist.init_process_group(backend, None, PATIENCE, size, rank, store)
        yield


def tell(
    step: int,
    loss: float,
    *,
    steps: int | None = None,
    bytes_sent: float = 0,
    waiting: float = 0.0,
) -> None:
    """Tell whoever started the ranks how far this one is. A live view's Pause holds it here.

    Args:
        step: number of the step just done, from 0.
        loss: this rank's own loss.
        steps: how many there will be in all, if that is known.
        bytes_sent: bytes that this rank sent to others in this step.
        waiting: seconds of this step that it spent waiting for others.
    """
    _listener(int(step), float(loss), steps, int(bytes_sent), float(waiting))


def _print(step: int, loss: float, steps: int | None, bytes_sent: int, waiting: float) -> None:
    rank = dist.get_rank() if dist.is_initialized() else 0
    of = f" of {steps}" if steps else ""
    sent = f", {bytes_sent:,} bytes sent, {1e3 * waiting:.1f} ms waiting" if bytes_sent else ""
    line = f"rank {rank}, step {step}{of}: loss {loss:.4f}{sent}\n"
    print(line, end="", flush=True)  # in one piece: other ranks write to the same terminal


Listener: TypeAlias = Callable[[int, float, int | None, int, float], None]
_listener: Listener = _print
"""Where `tell` goes: to the terminal, unless `launch` has set a listener."""


def listen(listener: Listener) -> None:
    """Call `listener(step, loss, steps, bytes_sent, waiting)` for each `tell` from now on.

    A global of the process, because the function that a rank runs is the reader's own: it calls
    `tell`, and is handed no object that could say where to.
    """
    global _listener
    _listener = listener


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise ValueError(f"environment variable {name} must be a whole number, got {text!r}")
    return int(text)


def _device(local_rank: int, local_size: int) -> torch.device:
    """One rank a device; ranks that would have to share a device compute on the CPU."""
    # NCCL refuses two ranks on one device; and two on one would only take turns.
    if torch.cuda.is_available() and torch.cuda.device_count() >= local_size:
        return torch.device("cuda", local_rank)
    return torch.device("cpu")


@contextmanager
def _torchruns_interface(size: int) -> Iterator[None]:
    """Listen where the user said, else on loopback. That does not reach another machine."""
    if INTERFACE in os.environ:
        yield
        return
    if _number("LOCAL_WORLD_SIZE", size) < size:  # the others must be elsewhere
        raise ValueError(
            f"the ranks are on several machines: name the network interface that joins them in the "
            f"environment variable {INTERFACE}, for example {INTERFACE}=eth0"
        )
    with _loopback_only():
        yield


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Keep gloo from listening on an interface that other machines can reach.

    Whoever reaches gloo's port can send it tensors, or stop the training: it knows no password.
    """
    if sys.platform == "win32":  # there gloo takes no name of an interface
        yield
        return
    before = os.environ.get(INTERFACE)
    os.environ[INTERFACE] = "lo0" if sys.platform == "darwin" else "lo"
    try:
        yield
    finally:
        os.environ.pop(INTERFACE)
        if before is not None:
            os.environ[INTERFACE] = before
