"""Pipeline schedules as arithmetic: who computes what when, and how long the others idle.

A model cut into p stages, one a rank, would let one rank work while p - 1 wait. So the batch is cut
into m microbatches, and a rank hands each one on as soon as it is done with it. The ends remain:
the last rank waits for the first microbatch to arrive, the first for the last gradient to come
back. That idle share is the *bubble*, (p - 1) / (m + p - 1), if all stages take equally long.

- *GPipe* does all forward passes, then all backward passes. Until then a rank keeps the activations
  of all m microbatches.
- *1F1B* (one forward, one backward) starts each backward pass as soon as it can. The bubble is the
  same, but rank r keeps the activations of p - r microbatches at most, however large m is.

Interleaved and zero-bubble schedules make the bubble smaller, for more messages; see
`torch.distributed.pipelining`.

Sources: Huang et al., "GPipe: efficient training of giant neural networks using pipeline
parallelism", 2019; Narayanan et al., "PipeDream: generalized pipeline parallelism for DNN
training", 2019.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from labkit.checks import check_number, check_positive_int, check_whole

Kind = Literal["GPipe", "1F1B"]


class Block(NamedTuple):
    """One pass of one microbatch on one rank.

    Attributes:
        rank: who computes.
        start: when it starts; the first block of all starts at 0.
        end: when it ends.
        kind: "F" for a forward pass, "B" for a backward pass.
        microbatch: its number, from 0.
    """

    rank: int
    start: float
    end: float
    kind: str
    microbatch: int


def bubble(stages: int, microbatches: int) -> float:
    """Return the idle share of all ranks' time, 0 to 1, for stages that take equally long.

    Raises:
        ValueError: an argument is not a positive whole number.
    """
    check_positive_int("stages", stages)
    check_positive_int("microbatches", microbatches)
    return (stages - 1) / (microbatches + stages - 1)


def in_flight(kind: Kind, stages: int, microbatches: int, rank: int) -> int:
    """Return of how many microbatches `rank` holds the activations at most, at the same time.

    Raises:
        ValueError: `kind` is unknown, `rank` is not one of the stages, or a number is not positive.
    """
    _check(kind, stages, microbatches, rank)
    # 1F1B: a microbatch comes back after it has passed all later stages, forward and backward.
    # Until then the rank has begun one more for each of them.
    return microbatches if kind == "GPipe" else min(microbatches, stages - rank)


def order(kind: Kind, stages: int, microbatches: int, rank: int) -> list[tuple[str, int]]:
    """Return what `rank` does, one after the other: ("F" or "B", microbatch).

    Raises:
        ValueError: as for `in_flight`.
    """
    ahead = in_flight(kind, stages, microbatches, rank)
    # Both kinds are the same rule: so many forward passes ahead, then one backward, one forward.
    todo = [("F", index) for index in range(ahead)]
    for index in range(microbatches):
        todo.append(("B", index))
        if ahead + index < microbatches:
            todo.append(("F", ahead + index))
    return todo


def pipeline_schedule(
    kind: Kind, stages: int, microbatches: int, *, forward: float = 1.0, backward: float = 2.0
) -> list[Block]:
    """Return the blocks of all ranks, in order of start, if messages took no time.

    Args:
        kind: "GPipe" or "1F1B".
        stages: number of ranks, each with one stage.
        microbatches: number of them in a batch.
        forward: time of a forward pass of a microbatch on a rank, in any unit.
        backward: time of a backward pass; it does about twice the work of a forward pass.

    Raises:
        ValueError: `kind` is unknown, or a number is not positive.
    """
    for name, value in (("forward", forward), ("backward", backward)):
        check_number(name, value)
    _check(kind, stages, microbatches, 0)
    todo = [order(kind, stages, microbatches, rank) for rank in range(stages)]
    done: dict[tuple[int, str, int], float] = {}
    blocks: list[Block] = []
    free = [0.0] * stages
    # Again and again over the ranks: each goes on as far as what it needs is known.
    while len(blocks) < 2 * stages * microbatches:
        for rank in range(stages):
            while todo[rank] and (ready := _ready(done, stages, rank, *todo[rank][0])) is not None:
                what, index = todo[rank].pop(0)
                start = max(free[rank], ready)
                free[rank] = start + (forward if what == "F" else backward)
                done[rank, what, index] = free[rank]
                blocks.append(Block(rank, start, free[rank], what, index))
    return sorted(blocks, key=lambda block: (block.start, block.rank))


def idle(blocks: Sequence[Block]) -> float:
    """Return the idle share of all ranks' time, 0 to 1, from the first start to the last end.

    Raises:
        ValueError: there are no blocks, or they take no time.
    """
    if not blocks:
        raise ValueError("blocks must hold at least one block, got none")
    ranks = len({block.rank for block in blocks})
    span = max(block.end for block in blocks) - min(block.start for block in blocks)
    check_number("blocks' time from first start to last end", span)
    return 1 - sum(block.end - block.start for block in blocks) / (ranks * span)


def _ready(
    done: dict[tuple[int, str, int], float], stages: int, rank: int, what: str, microbatch: int
) -> float | None:
    """Return when that which a pass needs is there; None if that is not known yet."""
    if what == "F":
        return 0.0 if rank == 0 else done.get((rank - 1, "F", microbatch))
    if rank == stages - 1:  # the loss is here: backward follows its own forward pass
        return done.get((rank, "F", microbatch))
    return done.get((rank + 1, "B", microbatch))


def _check(kind: str, stages: int, microbatches: int, rank: int) -> None:
    check_positive_int("stages", stages)
    check_positive_int("microbatches", microbatches)
    check_whole("rank", rank, 0, stages - 1)
