"""Four ways for several ranks to train one model: watched one by one, and raced in turns."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from math import nan
from time import perf_counter, thread_time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from labkit.compare import STEP_TIME, Samples
from labkit.distributed import init, tell
from labkit.distributed.collectives.rank_timing import interleave_ranks
from labkit.distributed.parallel.data import average_coalesced
from labkit.distributed.parallel.pipeline import Pipeline
from labkit.distributed.parallel.stages import forward_costs, pipeline_stage
from labkit.distributed.parallel.tensor import split_blocks
from labkit.lessons.model_parallel.small_model import Pair, backward, build, my_part
from labkit.plan.splits import Split, TransformerSize
from labkit.training import next_token

MICROBATCHES = 8
SGD: dict[str, Any] = {"lr": 0.3}  # the race holds a copy of the model for each way: no moments
WAYS = ("one process", "data", "tensor", "pipeline")


def train(way: str, size: TransformerSize, batches: Iterable[Pair], steps: int) -> list[float]:
    """Train one way, telling of each step; return this rank's losses.

    The bytes are those of the formula. A rank waits when its thread does not compute: for others,
    or because other programs have the processor.
    """
    with init() as world:
        step, losses = step_of(way, size), []
        for number, batch in enumerate(islice(batches, steps)):
            start, worked = perf_counter(), thread_time()
            losses.append(step(batch))
            waiting = (perf_counter() - start) - (thread_time() - worked)
            sent = as_split(way, size, len(batch[0]), world.size).sent
            tell(number, losses[-1], bytes_sent=sent, waiting=max(0.0, waiting))
    return losses


def as_split(way: str, size: TransformerSize, batch: int, ranks: int) -> Split:
    """Return one of WAYS as the planner knows it."""
    direction: dict[str, Any] = {} if way == "one process" else {way: ranks}
    return Split(size, batch, **direction, microbatches=MICROBATCHES if way == "pipeline" else 1)


def race(
    ways: Sequence[str], size: TransformerSize, batches: Iterable[Pair], rounds: int
) -> tuple[Samples, dict[str, list[float]]]:
    """Train several ways at once, each its own copy on the same batches, step by step in turn.

    Returns:
        The times of the steps; {way: the mean over ranks of the loss in each step}.
    """
    with init() as world:
        kept, losses = list(islice(batches, 2 + rounds)), {way: list[float]() for way in ways}

        def one(way: str, step: Callable[[Pair], float]) -> None:
            losses[way].append(step(kept[len(losses[way])]))

        arms = {way: partial(one, way, step_of(way, size)) for way in ways}
        samples = Samples.of_timings(interleave_ranks(arms, rounds, warmup=2), STEP_TIME)
        everyones: list[Any] = [None] * world.size
        dist.all_gather_object(everyones, list(losses.values()))
        means = torch.tensor(everyones, dtype=torch.float64).nanmean(dim=0)  # who rests has NaN
        return samples, dict(zip(losses, means.tolist(), strict=True))


def largest_gap(losses: Mapping[str, Sequence[float]]) -> float:
    """Return how far any way's loss is at most from that of the first way, in any step."""
    table = torch.tensor(list(losses.values()), dtype=torch.float64)
    return float((table - table[0]).abs().max())


def step_of(way: str, size: TransformerSize) -> Callable[[Pair], float]:
    """Return a function that makes one step of SGD on a batch, which all ranks give whole.

    It returns the loss: of the whole batch, or of this rank's part for "data", or NaN for the ranks
    that rest beside "one process".

    Raises:
        ValueError: `way` is not one of WAYS.
    """
    model, rank = build(size), dist.get_rank()
    compute: Callable[[Pair], Tensor] = partial(backward, model)
    trained: nn.Module = model
    if way == "pipeline":
        example = torch.zeros(1, size.context, dtype=torch.int64)
        trained = pipeline_stage(model, rank, dist.get_world_size(), forward_costs(model, example))
        compute = Pipeline(trained, next_token(), MICROBATCHES).step
    elif way == "data":
        compute = partial(_averaged, model)
    elif way == "tensor":
        split_blocks(model)
    elif way != "one process":
        raise ValueError(f"way must be one of {', '.join(WAYS)}, got {way!r}")
    optimizer = torch.optim.SGD(trained.parameters(), **SGD)

    def step(batch: Pair) -> float:
        optimizer.zero_grad()
        loss = compute(batch)
        optimizer.step()
        return loss.item()

    return step if way != "one process" or rank == 0 else lambda _: nan


def _averaged(model: nn.Module, batch: Pair) -> Tensor:
    loss = backward(model, my_part(batch))
    average_coalesced(model)
    return loss
