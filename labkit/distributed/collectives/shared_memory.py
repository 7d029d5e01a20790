"""All-reduce for the ranks of one machine, through memory that they share.

gloo sends by TCP, even to a process next door: each byte is copied into the kernel and out again,
by the very cores that should compute. Ranks of one machine have a shorter way. A file is mapped
into the memory of all of them; each writes its numbers to a row of its own, all meet, and each adds
up the rows. What one has written the others can read, and nothing is sent but the word that it is
there. (NCCL does the same between the GPUs of a machine where they cannot reach each other.)

Two sets of rows take turns. So one meeting a message is enough: who writes to a set again has met,
since, all who read it.
"""

import os
import shutil
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from labkit.checks import check_positive_int
from labkit.distributed.collectives.coalesced import AllReduce
from labkit.distributed.launcher.world import place

MARK = 16
"""Bytes of chance by which a rank knows the file of this very group."""


def shared_memory(elements: int, dtype: torch.dtype = torch.float32) -> AllReduce:
    """Return a function that sums tensors over all ranks, in place, as `dist.all_reduce` does.

    All ranks call it together, and then call what they get together. The sums have the same bits on
    all of them.

    Args:
        elements: of the largest tensor that will come.
        dtype: of the tensors.

    Returns:
        A function for `average_coalesced` and the like. It raises ValueError for a tensor that is
        too large, of another dtype, or not on the CPU.

    Raises:
        ValueError: `elements` is not a positive whole number or too many, or the ranks are on
            several machines.
    """
    check_positive_int("elements", elements)
    rank, size = place()
    memory = _map(2 * size * elements, dtype, rank).view(2, size, elements)
    turn = 0

    def all_reduce(tensor: Tensor) -> None:
        nonlocal turn
        if tensor.device.type != "cpu" or tensor.dtype != dtype or tensor.numel() > elements:
            raise ValueError(
                f"tensor must be {dtype}, on the CPU, of at most {elements} elements, "
                f"got {tensor.dtype}, {tensor.device.type}, {tensor.numel()}"
            )
        turn = 1 - turn  # who is slow may still read the other set
        rows = memory[turn, :, : tensor.numel()]
        rows[rank].copy_(tensor.detach().flatten())
        dist.barrier()  # all have written
        # Every rank adds in the same order, so that all have the same bits.
        tensor.copy_(rows.sum(dim=0).view(tensor.shape))

    return all_reduce


def _map(elements: int, dtype: torch.dtype, rank: int) -> Tensor:
    """Return memory that all ranks share. Its file loses its name here, so it ends with them."""
    # A file of this user's, in a folder of its own: other users cannot open it, nor put their own.
    made = Path(tempfile.mkdtemp(prefix="labkit-")) if rank == 0 else None
    try:
        told = [str(made), os.urandom(MARK)]
        dist.broadcast_object_list(told)
        path = Path(str(told[0])) / "memory"
        if made is not None:
            path.write_bytes(told[1])  # type: ignore[arg-type]
        dist.barrier()
        # The path alone says little: another machine may have a file of that name.
        here = torch.tensor(path.is_file() and path.read_bytes() == told[1])
        dist.all_reduce(here, op=dist.ReduceOp.MIN)
        if not here:
            raise ValueError("the ranks must be on one machine to share memory, and are not")
        try:
            memory = torch.from_file(str(path), shared=True, size=elements, dtype=dtype)
        except RuntimeError as error:  # on all ranks alike: it is one machine
            raise ValueError(
                f"elements must fit on this machine, rows of all ranks: {error}"
            ) from error
        dist.barrier()
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
    dist.barrier()  # for all of them the file is gone
    return memory
