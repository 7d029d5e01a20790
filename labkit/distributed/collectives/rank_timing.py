"""Time pieces of work that several ranks do together, in turn, so that noise hurts all alike.

A step of a distributed job is over when its slowest rank is done. So all ranks start each piece
together (a barrier), and the time that counts is that of the slowest. The pieces take turns in an
order that changes with each round, the same on all ranks (`labkit.measure.order_of_round`), and a
busy neighbour slows them all.

Compare two by the ratios within rounds: `labkit.measure.paired_ratio(times["a"], times["b"])`.
"""

from collections.abc import Callable, Mapping
from time import perf_counter

import torch
import torch.distributed as dist

from labkit.checks import check_positive_int
from labkit.facts import default_device, synchronize
from labkit.measure import order_of_round


def interleave_ranks(
    arms: Mapping[str, Callable[[], object]], rounds: int, *, warmup: int = 2
) -> dict[str, list[float]]:
    """Time functions that all ranks call together, each once a round.

    Args:
        arms: name -> function; the same names in the same order on all ranks.
        rounds: samples for each arm.
        warmup: untimed rounds first. Two of them let DistributedDataParallel sort its buckets.

    Returns:
        Seconds of the slowest rank for each arm and round, the same numbers on all ranks.

    Raises:
        ValueError: no arms, or `rounds` or `warmup` out of range.
    """
    if not arms:
        raise ValueError("arms is empty: give at least one name and function")
    check_positive_int("rounds", rounds)
    if not isinstance(warmup, int) or isinstance(warmup, bool) or warmup < 0:
        raise ValueError(f"warmup must be a whole number of at least 0, got {warmup!r}")
    seconds = torch.zeros(warmup + rounds, len(arms), dtype=torch.float64)
    columns = {name: column for column, name in enumerate(arms)}
    for number, row in enumerate(seconds):
        for name in order_of_round(list(arms), number):
            row[columns[name]] = _seconds(arms[name])
    dist.all_reduce(seconds, op=dist.ReduceOp.MAX)
    return dict(zip(arms, seconds[warmup:].T.tolist(), strict=True))


def _seconds(function: Callable[[], object]) -> float:
    """Return this rank's time for one call, after all ranks have come to it."""
    device = default_device()
    synchronize(device)
    dist.barrier()
    start = perf_counter()
    function()
    synchronize(device)
    return perf_counter() - start
