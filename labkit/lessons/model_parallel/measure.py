"""Notebook 13: what its ranks do. Each function joins the others and returns plain numbers."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from math import nan
from time import perf_counter, thread_time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from labkit.distributed import init, tell
from labkit.distributed.collectives.rank_timing import interleave_ranks
from labkit.distributed.parallel.data import average_coalesced
from labkit.distributed.parallel.pipeline import Pipeline
from labkit.distributed.parallel.sharding import Sharded, state_bytes
from labkit.distributed.parallel.stages import forward_costs, pipeline_stage
from labkit.distributed.parallel.tensor import split, split_blocks
from labkit.models import Transformer, next_token_loss, transformer
from labkit.plan.memory import StateBytes
from labkit.plan.pipeline_schedules import Block, Kind, idle
from labkit.plan.splits import Split, TransformerSize
from labkit.training import next_token

# A larger epsilon than AdamW's own: the gradient of a key's bias is nothing but rounding noise
# around 0 (it shifts all scores of a query alike), and noise / (noise + 1e-8) would be a full step.
ADAMW: dict[str, Any] = {"lr": 1e-3, "eps": 1e-6}
MICROBATCHES = 8
SGD: dict[str, Any] = {"lr": 0.3}  # for the race: four copies of the model, and no moments
WAYS = ("one process", "data", "tensor", "pipeline")

Batch = tuple[Tensor, Tensor]
Gradients = dict[str, Tensor]


def build(size: TransformerSize, seed: int = 0) -> Transformer:
    """Return the same transformer on each rank."""
    torch.manual_seed(seed)
    return transformer(size.vocabulary, size.width, size.depth, size.heads, size.context)


def gradients(model: nn.Module) -> Gradients:
    """Return the gradients that there are, by name."""
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def alone(size: TransformerSize, batch: Batch) -> tuple[float, Gradients]:
    """Return loss and gradients of one process."""
    model = build(size)
    loss = next_token_loss(model(batch[0]), batch[1])
    torch.autograd.backward(loss)
    return loss.item(), gradients(model)


# -- pipeline --------------------------------------------------------------------------------


def timelines(
    size: TransformerSize, batch: Batch, ways: dict[str, tuple[Kind, int]], steps: int = 5
) -> dict[str, list[Block]]:
    """Return who computed what when, for {name: (schedule, microbatches)}.

    Shown is one step, the middle one by idle time of `steps`, after two to warm up.
    """
    with init() as world:
        model, seen = build(size), {}
        mine = pipeline_stage(model, world.rank, world.size, forward_costs(model, batch[0][:1]))
        for name, (kind, microbatches) in ways.items():
            pipeline, found = Pipeline(mine, next_token(), microbatches, kind), []
            for _ in range(2 + steps):
                pipeline.step(batch)
                found.append(pipeline.timeline())
            seen[name] = sorted(found[2:], key=idle)[steps // 2]
        return seen


# -- tensor ----------------------------------------------------------------------------------


def by_dtensor(size: TransformerSize, batch: Batch) -> tuple[float, Gradients]:
    """Return loss and whole gradients of torch's own tensor parallel."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        parallelize_module,
    )

    with init() as world:
        mesh = init_device_mesh(world.device.type, (world.size,))
        columns = ("attention.query", "attention.key", "attention.value", "mlp.up")
        ways: dict[str, Any] = {f"blocks.*.{name}": ColwiseParallel() for name in columns} | {
            f"blocks.*.{name}": RowwiseParallel() for name in ("attention.output", "mlp.down")
        }
        model = parallelize_module(build(size), mesh, ways)
        loss = _backward(model, batch)
        full = {
            name: gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
            for name, gradient in gradients(model).items()
        }
        return loss.item(), full


def layer_times(widths: Sequence[int], rounds: int, tokens: int = 512) -> dict[str, list[float]]:
    """Time an MLP forward and backward: "whole W" on one rank, "split W" over all."""
    with init() as world:
        arms: dict[str, Callable[[], object]] = {}
        for width in widths:
            x = torch.randn(tokens, width)
            whole, cut = (_mlp(width) for _ in range(2))
            split(cut, ["0"], ["2"])
            arms[f"whole {width}"] = partial(_there_and_back, whole if world.rank == 0 else None, x)
            arms[f"split {width}"] = partial(_there_and_back, cut, x)
        return interleave_ranks(arms, rounds)


def _mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


def _there_and_back(model: nn.Module | None, x: Tensor) -> None:
    if model is not None:
        torch.autograd.backward(model(x.detach().requires_grad_()).square().mean())


# -- shards ----------------------------------------------------------------------------------


def zero(
    size: TransformerSize, batches: Sequence[Batch], level: int
) -> tuple[list[float], StateBytes]:
    """Train with ZeRO by hand; return this rank's losses, and the bytes it held before a step.

    Args:
        size: of the model.
        batches: whole ones; each rank takes its part.
        level: stage of ZeRO; 0 is plain data parallel.
    """
    with init():
        model, losses = build(size), []
        if level:
            sharded = Sharded(model, level, model.blocks, **ADAMW)
            step, held = sharded.step, sharded.state_bytes
        else:
            optimizer = torch.optim.AdamW(model.parameters(), **ADAMW)
            step = partial(_averaged_step, model, optimizer)
            held = partial(state_bytes, list(model.parameters()), optimizer)
        for batch in batches:
            losses.append(_backward(model, _my_part(batch)).item())
            measured = held()
            step()
        return losses, measured


def _averaged_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    average_coalesced(model)
    optimizer.step()
    optimizer.zero_grad()


def fully_sharded(size: TransformerSize, seed: int = 0) -> Any:
    """Return a transformer under torch's `fully_shard`, block by block."""
    from torch.distributed.fsdp import fully_shard

    model = build(size, seed)
    for block in model.blocks:
        fully_shard(block)
    fully_shard(model)
    return model


def by_fully_shard(
    size: TransformerSize, batches: Sequence[Batch]
) -> tuple[list[float], StateBytes]:
    """Do what `zero` does, with torch's stage 3."""
    with init():
        model, losses = fully_sharded(size), []
        optimizer = torch.optim.AdamW(model.parameters(), **ADAMW)
        for batch in batches:
            losses.append(_backward(model, _my_part(batch)).item())
            measured = state_bytes(list(model.parameters()), optimizer)
            optimizer.step()
            optimizer.zero_grad()
        return losses, measured


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the whole weights of a model under `fully_shard`, on the first rank only.

    All ranks must call it. A copy from each of them would fill the notebook's memory.
    """
    named: Any = model.named_parameters()
    whole = ((name, parameter.detach().full_tensor()) for name, parameter in named)
    return {name: tensor for name, tensor in whole if dist.get_rank() == 0}


def _my_part(batch: Batch) -> Batch:
    inputs, targets = (t.chunk(dist.get_world_size())[dist.get_rank()] for t in batch)
    return inputs, targets


# -- training --------------------------------------------------------------------------------


def train(way: str, size: TransformerSize, batches: Iterable[Batch], steps: int) -> list[float]:
    """Train one way, reporting each step; return this rank's losses.

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
    return {
        "one process": Split(size, batch),
        "data": Split(size, batch, data=ranks),
        "tensor": Split(size, batch, tensor=ranks),
        "pipeline": Split(size, batch, pipeline=ranks, microbatches=MICROBATCHES),
    }[way]


def race(
    ways: Sequence[str], size: TransformerSize, batches: Iterable[Batch], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Train several ways at once, each its own copy on the same batches, step by step in turn.

    Returns:
        {way: seconds of each step}, {way: this rank's loss in each step}.
    """
    with init():
        kept, losses = list(islice(batches, 2 + rounds)), {way: list[float]() for way in ways}

        def one(way: str, step: Callable[[Batch], float]) -> None:
            losses[way].append(step(kept[len(losses[way])]))

        arms = {way: partial(one, way, step_of(way, size)) for way in ways}
        return interleave_ranks(arms, rounds, warmup=2), losses


def step_of(way: str, size: TransformerSize) -> Callable[[Batch], float]:
    """Return a function that makes one step of SGD on a batch, which all ranks give whole.

    It returns the loss: of the whole batch, or of this rank's part for "data", or NaN for the ranks
    that sit idle beside "one process".

    Raises:
        ValueError: `way` is not one of WAYS.
    """
    model, rank = build(size), dist.get_rank()
    if way == "one process" and rank > 0:
        return lambda _: nan
    if way == "pipeline":
        example = torch.zeros(1, size.context, dtype=torch.int64)
        mine = pipeline_stage(model, rank, dist.get_world_size(), forward_costs(model, example))
        pipeline = Pipeline(mine, next_token(), MICROBATCHES)
        return _step(mine, pipeline.step)
    if way == "data":
        return _step(
            model,
            lambda batch: _backward(model, _my_part(batch)),
            lambda: average_coalesced(model),
        )
    if way == "tensor":
        split_blocks(model)
    elif way != "one process":
        raise ValueError(f"way must be one of {', '.join(WAYS)}, got {way!r}")
    return _step(model, lambda batch: _backward(model, batch))


def _step(
    model: nn.Module,
    compute: Callable[[Batch], Tensor],
    average: Callable[[], object] = lambda: None,
) -> Callable[[Batch], float]:
    optimizer = torch.optim.SGD(model.parameters(), **SGD)

    def step(batch: Batch) -> float:
        optimizer.zero_grad()
        loss = compute(batch)
        average()
        optimizer.step()
        return loss.item()

    return step


def _backward(model: nn.Module, batch: Batch) -> Tensor:
    loss = next_token_loss(model(batch[0]), batch[1])
    torch.autograd.backward(loss)
    return loss
