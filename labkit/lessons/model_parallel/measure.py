"""What notebook 13 measures of each cut: a pipeline's idle time, split layers, sharded states.

Each function joins the other ranks.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn

from labkit.compare import STEP_TIME, Quantity, Samples
from labkit.distributed import init
from labkit.distributed.collectives.rank_timing import interleave_ranks
from labkit.distributed.parallel.data import average_coalesced
from labkit.distributed.parallel.pipeline import Pipeline
from labkit.distributed.parallel.sharding import Sharded, state_bytes
from labkit.distributed.parallel.stages import forward_costs, pipeline_stage
from labkit.distributed.parallel.tensor import split
from labkit.lessons.model_parallel.small_model import TOLERANCE, Pair, backward, build, my_part
from labkit.measure.timing import order_of_round
from labkit.plan.memory import StateBytes, zero_bytes
from labkit.plan.pipeline_schedules import Block, Kind, idle
from labkit.plan.splits import TransformerSize
from labkit.training import next_token

# -- pipeline --------------------------------------------------------------------------------

WARMUP = 2
IDLE = Quantity(
    "idle time",
    "%",
    "difference",
    "less idle",
    "more idle",
    margin=2.0,
    high=100.0,
    scale=100.0,
    difference_unit="points",
    versus="difference, points",
)


def timelines(
    size: TransformerSize, batch: Pair, ways: Mapping[str, tuple[Kind, int]], rounds: int
) -> tuple[Samples, dict[str, list[Block]]]:
    """Measure pipelines that take turns.

    Args:
        size: of the model.
        batch: the same on all ranks.
        ways: {name: (schedule, microbatches)}; the first is the baseline.
        rounds: steps of each, after two to warm up.

    Returns:
        For each way the ranks' idle share, and the time from the first pass to the last one; and
        the passes of one step, which is the middle one by idle time.
    """
    samples, found = Samples(ways, (IDLE, STEP_TIME)), {name: list[list[Block]]() for name in ways}
    with init() as world:
        model = build(size)
        mine = pipeline_stage(model, world.rank, world.size, forward_costs(model, batch[0][:1]))
        pipelines = {
            name: Pipeline(mine, next_token(), microbatches, kind)
            for name, (kind, microbatches) in ways.items()
        }
        for number in range(WARMUP + rounds):
            for name in order_of_round(list(ways), number):
                pipelines[name].step(batch)
                blocks = pipelines[name].timeline()
                if number >= WARMUP:
                    found[name].append(blocks)
                    samples.add(name, IDLE, idle(blocks), round=number)
                    samples.add(name, STEP_TIME, max(b.end for b in blocks), round=number)
    return samples, {name: sorted(steps, key=idle)[rounds // 2] for name, steps in found.items()}


# -- tensor ----------------------------------------------------------------------------------

LAYER_TIME = Quantity.time("time of an MLP")


def layer_times(widths: Sequence[int], rounds: int, tokens: int = 512) -> Samples:
    """Time an MLP forward and backward: "whole W" on one rank, "split W" over all.

    Args:
        widths: of the MLP's input and output; its hidden layer is four times as wide.
        rounds: samples of each.
        tokens: rows of the input.
    """
    with init() as world:
        arms: dict[str, Callable[[], object]] = {}
        for width in widths:
            x = torch.randn(tokens, width)
            whole, cut = (_mlp(width) for _ in range(2))
            split(cut, ["0"], ["2"])
            arms[f"whole {width}"] = partial(_there_and_back, whole if world.rank == 0 else None, x)
            arms[f"split {width}"] = partial(_there_and_back, cut, x)
        return Samples.of_timings(interleave_ranks(arms, rounds), LAYER_TIME)


def _mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


def _there_and_back(model: nn.Module | None, x: Tensor) -> None:
    """Go forward and backward, or rest beside the rank that has the whole layer."""
    if model is not None:
        torch.autograd.backward(model(x.detach().requires_grad_()).square().mean())


# -- sharded states --------------------------------------------------------------------------

# A larger epsilon than AdamW's own: the gradient of a key's bias is nothing but rounding noise
# around 0 (it shifts all scores of a query alike), and noise / (noise + 1e-8) would be a full step.
ADAMW: dict[str, Any] = {"lr": 1e-3, "eps": 1e-6}
ZERO = {"data parallel": 0, "ZeRO-1": 1, "ZeRO-2": 2, "ZeRO-3": 3, "fully_shard": 3}
"""Who shares out the states, and which stage of ZeRO that is. The last one is torch's."""
Trained: TypeAlias = tuple[list[float], StateBytes]
"""A rank's loss of each step, and the bytes that it held before the last one."""


def zero(way: str, size: TransformerSize, batches: Sequence[Pair]) -> Trained:
    """Train with shared states.

    Args:
        way: one of ZERO.
        size: of the model.
        batches: whole ones; each rank takes its part.
    """
    with init():
        losses: list[float] = []
        if way.startswith("ZeRO"):
            model = build(size)
            sharded = Sharded(model, ZERO[way], model.blocks, **ADAMW)
            step, held = sharded.step, sharded.state_bytes
        else:
            model = fully_sharded(size) if way == "fully_shard" else build(size)
            optimizer = torch.optim.AdamW(model.parameters(), **ADAMW)
            step = partial(_step, model, optimizer, average=way == "data parallel")
            held = partial(state_bytes, list(model.parameters()), optimizer)
        for batch in batches:
            losses.append(backward(model, my_part(batch)).item())
            measured = held()
            step()
        return losses, measured


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, average: bool) -> None:
    if average:
        average_coalesced(model)
    optimizer.step()
    optimizer.zero_grad()


def fully_sharded(size: TransformerSize, seed: int = 0) -> Any:
    """Return a transformer under torch's `fully_shard`, block by block."""
    from torch.distributed.fsdp import fully_shard

    model = build(size, seed)
    for block in model.blocks:
        fully_shard(block)
    return fully_shard(model)


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the whole weights of a model under `fully_shard`, on the first rank only.

    All ranks must call it. A copy from each of them would fill the notebook's memory.
    """
    named: Any = model.named_parameters()
    whole = ((name, parameter.detach().full_tensor()) for name, parameter in named)
    return {name: tensor for name, tensor in whole if dist.get_rank() == 0}


def same_losses(results: Sequence[Trained], expected: Sequence[Trained]) -> bool:
    """Say whether the mean of the ranks' losses is equal to 1e-5 in each step."""
    found, right = (torch.tensor([losses for losses, _ in r]).mean(0) for r in (results, expected))
    return bool(((found - right).abs() <= TOLERANCE * right.abs()).all())


def held_bytes(trained: Mapping[str, Sequence[Trained]], parameters: int) -> Samples:
    """Return what the first rank held in each way, beside what arithmetic says.

    Args:
        trained: {way: what each rank of `zero` returned}.
        parameters: of the whole model.
    """
    samples = Samples(trained)
    for way, ranks in trained.items():
        held, predicted = ranks[0][1], zero_bytes(parameters, len(ranks), ZERO[way])
        columns = {**held._asdict(), "together": held.total, "predicted": predicted.total}
        for name, size in columns.items():
            samples.add(way, Quantity(name, "MB", exact=True, scale=1e-6), size)
    return samples
