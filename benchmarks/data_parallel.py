"""How near do two ranks come to the no-communication ceiling, and what keeps them from it?

The ceiling is the same two processes at the same time, each for itself. All ways take turns within
one job, a few steps each, and the slower rank counts. A job is started anew for each turn, so that
luck in memory placement does not stay with one way; so a turn is one observation: the median of its
ratios, and the interval is over turns.

Beside the ways to average gradients there are controls. "the ceiling again" shows what difference
is left when there is none. "packing" copies all gradients to one tensor and back, and sends
nothing; "meeting" exchanges nothing, but waits after each backward pass until the other rank has
come as far. What they lose no way can win back that waits for the whole gradient.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median

from torch import Tensor

from benchmarks.rows import Row
from labkit.distributed import launch
from labkit.distributed.parallel.averaging import (
    AVERAGINGS,
    CEILING,
    MEETING,
    Averaging,
    time_averagings,
)
from labkit.distributed.parallel.data import average_coalesced
from labkit.measure.statistics import median_interval

CONTROLS = ("the ceiling again", "packing", MEETING)


def nothing(tensor: Tensor) -> None:
    """Exchange nothing."""


WAYS: Mapping[str, Averaging] = {
    **AVERAGINGS,
    "the ceiling again": Averaging(),
    "packing": Averaging(after=partial(average_coalesced, all_reduce=nothing)),
}


def run(quick: bool = False) -> list[Row]:
    """Return for each way what part of the ceiling's speed it reaches, two ranks of 128 images."""
    turns, rounds = (2, 4) if quick else (20, 12)
    return rows([_turn(rounds) for _ in range(turns)])


def rows(turns: Sequence[Mapping[str, Sequence[float]]]) -> list[Row]:
    """Return a row for each way but the ceiling.

    Args:
        turns: of each turn {way: seconds of each round}.
    """
    ways = [name for name in turns[0] if name != CEILING]
    shares = {
        name: [
            median(a / b for a, b in zip(turn[CEILING], turn[name], strict=True)) for turn in turns
        ]
        for name in ways
    }
    return [
        Row(name, median_interval(share), "of the ceiling", "control" if name in CONTROLS else "")
        for name, share in shares.items()
    ]


def _turn(rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = launch(time_averagings, rounds=rounds, averagings=WAYS)[0]
    return times
