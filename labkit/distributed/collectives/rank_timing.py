"""Time pieces of work that several ranks do together, in turn, so that noise hurts all alike.

A step of a distributed job is over when its slowest rank is done. So all ranks start each piece
together (a barrier), and the time that counts is that of the slowest. The pieces take turns in an
order that changes with each round, the same on all ranks (`labkit.measure.order_of_round`), and a
busy neighbour slows them all.

Compare two by the ratios within rounds:
`labkit.compare.Samples.of_timings(times, quantity).verdict("b")`.
"""

from collections.abc import Callable, Mapping

import torch
import torch.distributed as dist

from labkit.distributed.launcher.world import place
from labkit.facts import default_device, synchronize
from labkit.measure.timing import in_turns, seconds_of


def interleave_ranks(
    functions: Mapping[str, Callable[[], object]], rounds: int, *, warmup: int = 2
) -> dict[str, list[float]]:
    """Time functions that all ranks call together, each once a round.

    Args:
        functions: name -> function; the same names in the same order on all ranks.
        rounds: samples for each function.
        warmup: untimed rounds first. Two of them let DistributedDataParallel sort its buckets.

    Returns:
        Seconds of the slowest rank for each function and round, the same numbers on all ranks.

    Raises:
        ValueError: no functions, or `rounds` or `warmup` out of range.
        TypeError: a value of `functions` cannot be called.
    """
    place()
    mine = in_turns(functions, _seconds_from_a_common_start, rounds=rounds, warmup=warmup)
    # One message at the end: a maximum after each call would be work between two samples.
    slowest = torch.tensor(list(mine.values()), dtype=torch.float64)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    return dict(zip(mine, slowest.tolist(), strict=True))


def _seconds_from_a_common_start(function: Callable[[], object]) -> float:
    device = default_device()
    synchronize(device)  # first: a rank whose device still works would come late from the barrier
    dist.barrier()
    return seconds_of(function, device)
