"""All-reduce by hand: every rank ends with the sum of all ranks' tensors.

The simple way sends everything to one rank, which adds up and sends the sum back. That rank then
moves (n - 1) times the tensor in and as much out, while the others wait for it.

The ring cuts the tensor into n chunks. Each rank talks to its right neighbour only: in each step it
sends one chunk and receives another. In the first n - 1 steps (*reduce-scatter*) what arrives is
added, so each chunk gathers one rank's share after another on its way; then every rank owns one
finished chunk. In n - 1 further steps (*all-gather*) the finished chunks go round. A rank sends
2 (n - 1) / n times the tensor in all: less than twice, however many ranks there are. No algorithm
sends less. The price is 2 (n - 1) steps, each with its latency: for small tensors trees are better.

`torch.distributed.all_reduce` does the same in C++, overlapping the pieces: use that one.

Source: Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations",
2009.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from labkit.checks import check_positive_int
from labkit.distributed.launcher.world import place


def ring_all_reduce(tensor: Tensor) -> Tensor:
    """Replace `tensor`, in place, by the sum over all ranks; return it.

    All ranks end with the same bits: each chunk is added up once and then only copied.

    Args:
        tensor: floating point, any shape, the same on all ranks.

    Raises:
        TypeError: `tensor` does not hold floating-point numbers.
    """
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"tensor must hold floating-point numbers, got {kind}")
    rank, ranks = place()
    flat = tensor.detach().flatten()  # a view where the memory allows it, else a copy
    chunks = flat.tensor_split(ranks)  # sizes differ by one at most; a chunk may be empty
    for step in range(2 * (ranks - 1)):
        sends, receives = chunk_sent(rank, step, ranks), chunk_sent(rank - 1, step, ranks)
        # What is sent in this step is not what is received into, so both can go on at once.
        arrived = _pass_on(chunks[sends], like=chunks[receives])
        if step < ranks - 1:
            chunks[receives].add_(arrived)  # reduce-scatter
        else:
            chunks[receives].copy_(arrived)  # all-gather
    if flat.data_ptr() != tensor.data_ptr():
        tensor.detach().copy_(flat.view(tensor.shape))
    return tensor


def chunk_sent(rank: int, step: int, ranks: int) -> int:
    """Return which chunk `rank` sends to its right neighbour in a step, 0 … 2 (ranks - 1) - 1.

    A rank begins with the chunk of its own number. After that it sends on what it received in the
    step before, and that is the left neighbour's chunk: one less each time.
    """
    return (rank - step) % ranks


def _pass_on(chunk: Tensor, like: Tensor) -> Tensor:
    """Send a chunk to the right and return what comes from the left, of the size of `like`."""
    rank, ranks = place()
    arrived = torch.empty_like(like)
    # Both at once, or each rank would wait for its right neighbour to receive, all round the ring.
    work = []
    if chunk.numel():  # both sides know the sizes, so an empty message need not be sent
        work.append(dist.P2POp(dist.isend, chunk, (rank + 1) % ranks))
    if arrived.numel():
        work.append(dist.P2POp(dist.irecv, arrived, (rank - 1) % ranks))
    for job in dist.batch_isend_irecv(work) if work else []:
        job.wait()
    return arrived


class RingState(NamedTuple):
    """What there is after a step.

    Attributes:
        phase: "start", "reduce-scatter" or "all-gather": what the step was part of.
        sent: the chunk that each rank sent to its right neighbour in this step; empty at the start.
        held: held[rank][chunk] is the set of ranks whose shares are in it.
    """

    phase: str
    sent: tuple[int, ...]
    held: tuple[tuple[frozenset[int], ...], ...]


def ring_steps(ranks: int) -> list[RingState]:
    """Return the start and what each step of `ring_all_reduce` leaves behind, without sending.

    Raises:
        ValueError: `ranks` is not a positive whole number.
    """
    check_positive_int("ranks", ranks)
    held = tuple((frozenset({rank}),) * ranks for rank in range(ranks))
    states = [RingState("start", (), held)]
    for step in range(2 * (ranks - 1)):
        adds = step < ranks - 1
        sent = tuple(chunk_sent(rank, step, ranks) for rank in range(ranks))
        held = tuple(_after(held, rank, sent[rank - 1], adds) for rank in range(ranks))
        states.append(RingState("reduce-scatter" if adds else "all-gather", sent, held))
    return states


def _after(
    held: tuple[tuple[frozenset[int], ...], ...], rank: int, chunk: int, adds: bool
) -> tuple[frozenset[int], ...]:
    """Return what `rank` holds when `chunk` has come from its left neighbour."""
    mine = list(held[rank])
    mine[chunk] = held[rank - 1][chunk] | (mine[chunk] if adds else frozenset())
    return tuple(mine)
