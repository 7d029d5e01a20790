"""Cut a model into stages, one a rank, that take as equally long as can be.

A model is a chain of parts, each of which takes what the one before returns. Cuts can only lie
between parts, so stages are seldom equal; the dearest one sets the pace, and all others wait for it
with each microbatch. What a part costs can be counted (`forward_costs`); parameters are a bad
measure: an embedding has many and computes nothing, a convolution has few and computes much.

For models that are no chain, `torch.distributed.pipelining.pipeline` traces the model and cuts its
graph; it needs a model that `torch.export` understands.
"""

import itertools
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import partial

import numpy
import torch
from torch import Tensor, nn

from labkit.checks import check_number, check_positive_int, check_whole, explaining
from labkit.measure.flops import flops

TRANSFORMER = ("embedding", "blocks", "norm", "head")
"""The parts of labkit's transformer, in the order they are called."""


def parts(model: nn.Module | Iterable[nn.Module]) -> list[nn.Module]:
    """Return the pieces of a model between which it may be cut, in the order they are called.

    Args:
        model: labkit's transformer, an `nn.Sequential`, or an iterable of modules, each of which
            takes what the one before returns.

    Raises:
        TypeError: `model` is none of these.
    """
    if _is_transformer(model):
        embedding, blocks, norm, head = (getattr(model, name) for name in TRANSFORMER)
        return [embedding, *blocks, nn.Sequential(norm, head)]
    if isinstance(model, nn.Sequential) or not isinstance(model, nn.Module):
        pieces = list(model) if isinstance(model, Iterable) else []
        if pieces and all(isinstance(piece, nn.Module) for piece in pieces):
            return pieces
    raise TypeError(
        "model must be a transformer of labkit, an nn.Sequential, or a list of modules, "
        f"got {type(model).__name__}"
    )


def forward_costs(model: nn.Module | Iterable[nn.Module], inputs: Tensor) -> list[int]:
    """Return the floating-point operations of the forward pass of each of `parts(model)`.

    Args:
        model: as for `parts`.
        inputs: what the model takes; one sample is enough.

    Raises:
        ValueError: a part does not take what comes to it.
    """
    counts, last = list[int](), [inputs]

    def run(piece: nn.Module) -> None:  # keeps what it returns for the next part
        with explaining(f"{type(piece).__name__} {len(counts)} of model", last[0]):
            last[0] = piece(last[0])

    with torch.no_grad():
        for piece in parts(model):
            counts.append(flops(partial(run, piece)))
    return counts


def balanced_cuts(costs: Sequence[float], stages: int) -> list[range]:
    """Cut a chain of parts so that the dearest stage is as cheap as it can be.

    The slowest stage sets the pace: all others wait for it with each microbatch. Where several cuts
    are as good, the first stages get less: under 1F1B they hold the most microbatches.

    Args:
        costs: of each part, in any unit.
        stages: number of pieces; each gets at least one part.

    Returns:
        The indices of each stage's parts.

    Raises:
        ValueError: there are fewer parts than stages, or a cost is negative.
    """
    check_positive_int("stages", stages)
    if len(costs) < stages:
        raise ValueError(f"costs must have at least {stages} parts, one a stage, got {len(costs)}")
    for cost in costs:
        check_number("costs", cost, zero=True)

    # With one stage more each time: how dear the dearest of the first stage and of the best cut of
    # what is left is at least. A later end makes the one dearer and the other cheaper, so the best
    # end is where they cross, or just before; of ends that are as cheap it is the first.
    sums = numpy.concatenate([[0.0], numpy.cumsum(costs)])
    dearest, choices = sums[-1] - sums[:-1], []  # of one stage, from each start on
    for _ in range(stages - 1):
        starts = numpy.arange(len(dearest) - 1)
        cross = numpy.searchsorted(sums[: len(dearest)] - dearest, sums[starts])
        cross = cross.clip(starts + 1, len(dearest) - 1)
        first = sums[cross] - sums[starts]  # at the crossing the first stage is the dearest
        before = numpy.where(cross - 1 > starts, dearest[cross - 1], numpy.inf)
        best = numpy.minimum(numpy.maximum(first, dearest[cross]), before)
        flat = numpy.searchsorted(-dearest, -best)
        choices.append(numpy.maximum(flat, starts + 1))
        dearest = best
    ends = [0]
    for ends_from in reversed(choices):
        ends.append(int(ends_from[ends[-1]]))
    return [range(start, end) for start, end in itertools.pairwise([*ends, len(costs)])]


def pipeline_stage(
    model: nn.Module | Iterable[nn.Module],
    rank: int,
    size: int,
    costs: Sequence[float] | None = None,
) -> nn.Sequential:
    """Return the part of `model` that `rank` of `size` computes; the parameters are the model's.

    Parameters are named by the place of their part in the whole, whatever the number of stages, so
    a checkpoint of two stages fits four, or one (`sharded_checkpoint`).

    Args:
        model: as for `parts`, the same on all ranks.
        rank: of the stage, from 0.
        size: number of stages.
        costs: of each of `parts(model)`; see `forward_costs`. None counts the blocks of a
            transformer, or each module as one.

    Raises:
        TypeError: `model` cannot be cut.
        ValueError: too few parts, a wrong rank, or two stages would share a parameter.
    """
    pieces = parts(model)
    check_positive_int("size", size)
    check_whole("rank", rank, 0, size - 1)
    if costs is None:
        # Embedding and head cost little beside a block, where the vocabulary is small.
        ends = {0, len(pieces) - 1} if _is_transformer(model) else set()
        costs = [float(index not in ends) for index in range(len(pieces))]
    if len(costs) != len(pieces):
        raise ValueError(f"costs must be {len(pieces)}, one a part, got {len(costs)}")
    stages = [
        nn.Sequential(OrderedDict((str(i), pieces[i]) for i in run))  # numbers of the whole chain
        for run in balanced_cuts(costs, size)
    ]
    owners = [{id(parameter) for parameter in part.parameters()} for part in stages]
    if any(owners[a] & owners[b] for a in range(size) for b in range(a)):
        raise ValueError(
            "model must not use one parameter in two stages (tied weights): their gradients would "
            "have to be added up across ranks"
        )
    return stages[rank]


def _is_transformer(model: object) -> bool:
    return isinstance(model, nn.Module) and all(hasattr(model, name) for name in TRANSFORMER)
