"""Notebook 12: what its ranks do. Each function joins the others and returns plain numbers.

The images come from the notebook, which has loaded them anyway: reading the whole set in each rank
would take a second and a hundred megabytes there.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count, product
from statistics import fmean
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from labkit import models
from labkit.data import Batches
from labkit.data.images import ImageData
from labkit.distributed import World, init, tell
from labkit.distributed.collectives.compress import PowerSGD, low_rank_numbers
from labkit.distributed.collectives.network_meter import NetworkMeter
from labkit.distributed.collectives.rank_timing import interleave_ranks
from labkit.distributed.parallel.batch_norm import synchronize_batch_norm
from labkit.distributed.parallel.data import data_parallel
from labkit.distributed.parallel.local_sgd import average_ranks
from labkit.plan.messages import ring_bytes
from labkit.training import Training, cosine, evaluate, train

GRADIENT = 2 * 2**20  # bytes that are sent in buckets
DEALS = ("shuffled", "by class")
NORMS = ("plain", "synchronized")


def messages(sizes: Sequence[int], rounds: int) -> dict[str, dict[int, list[float]]]:
    """Time all-reduces of one message, and of GRADIENT bytes in buckets, of sizes that divide it.

    Returns:
        {"one message": {its bytes: seconds}, "in buckets": {bytes of a bucket: seconds}}.
    """
    kinds = ("one message", "in buckets")
    with init() as world:
        whole = torch.zeros(GRADIENT // 4, device=world.device)
        arms: dict[str, Callable[[], object]] = {}
        for size in sizes:
            buckets = torch.split(whole, size // 4)
            for kind, sent in zip(kinds, (buckets[:1], buckets), strict=True):
                arms[f"{kind} {size}"] = partial(_all_reduce, sent)
        times = interleave_ranks(arms, rounds)
    return {kind: {size: times[f"{kind} {size}"] for size in sizes} for kind in kinds}


def _all_reduce(tensors: Iterable[Tensor]) -> None:
    for tensor in tensors:
        dist.all_reduce(tensor)


class Way(NamedTuple):
    """What a way to average gradients costs: bytes a rank sends, relative error, seconds."""

    sent: float
    error: float
    seconds: list[float]


Hook = tuple[object, Callable[..., object]]
"""State and hook, as DDP's register_comm_hook takes them."""


def compression(images: ImageData, rounds: int) -> dict[str, Way]:
    """Compare ways to average the gradients of a step of the conv net, batch 32 a rank."""
    hooks: dict[str, Hook | None] = {
        "fp32": None,
        "bf16": (NetworkMeter(torch.bfloat16), NetworkMeter.hook),
        "fp16": (NetworkMeter(torch.float16), NetworkMeter.hook),
    }
    for rank in (1, 4):  # without feedback, so that the same gradient is sent each time
        hooks[f"PowerSGD {rank}"] = (PowerSGD(rank, error_feedback=False), PowerSGD.hook)
    with init() as world:
        batch = next(iter(_batches(images, world, "shuffled", 32, seed=0)))
        steps = {name: _StepWith(hook, batch, world) for name, hook in hooks.items()}
        times = interleave_ranks(steps, rounds)
        exact = steps["fp32"].gradient()
        errors = {
            name: (step.gradient() - exact).norm() / exact.norm() for name, step in steps.items()
        }
        shapes = [parameter.shape for parameter in steps["fp32"].model.parameters()]
        return {
            name: Way(ring_bytes(sent_size(name, shapes), world.size), float(errors[name]), seconds)
            for name, seconds in times.items()
        }


def sent_size(way: str, shapes: Iterable[torch.Size]) -> int:
    """Return the bytes in which gradients of these shapes travel, such as in the way "bf16"."""
    if way.startswith("PowerSGD"):
        return sum(4 * low_rank_numbers(shape, int(way.split()[1])) for shape in shapes)
    return sum({"fp32": 4, "bf16": 2, "fp16": 2}[way] * shape.numel() for shape in shapes)


class _StepWith:
    """Computes the gradient of one batch again and again, averaged by DDP with a hook."""

    def __init__(self, hook: Hook | None, batch: tuple[Tensor, Tensor], world: World) -> None:
        self.model, self.batch = _network(world, seed=0, width=16), batch
        self.wrapped = data_parallel(self.model)
        if hook is not None:
            self.wrapped.register_comm_hook(*hook)

    def __call__(self) -> None:
        self.wrapped.zero_grad()
        images, labels = self.batch
        torch.autograd.backward(F.cross_entropy(self.wrapped(images), labels))

    def gradient(self) -> Tensor:
        self()
        return torch.cat([p.grad.flatten() for p in self.model.parameters() if p.grad is not None])


def low_rank_training(images: ImageData, steps: int, seeds: int) -> dict[str, list[list[float]]]:
    """Train with the whole gradient, and with rank 2 with and without error feedback.

    Returns:
        {way: for each seed this rank's loss of each step}.
    """
    ways = {"whole": None, "rank 2, feedback": True, "rank 2, no feedback": False}
    losses: dict[str, list[list[float]]] = {name: [] for name in ways}
    with init() as world:
        for name, seed in product(ways, range(seeds)):
            wrapped = data_parallel(_network(world, seed))
            if (feedback := ways[name]) is not None:
                power = PowerSGD(2, error_feedback=feedback)
                wrapped.register_comm_hook(power, PowerSGD.hook)
            batches = _batches(images, world, "shuffled", 32, seed)
            losses[name].append([step.loss for step in _training(wrapped, batches, steps)])
    return losses


class Swept(NamedTuple):
    """Local SGD with one period: bytes a rank sends in a training, accuracy for each seed."""

    sent: float
    accuracies: list[float]


def periods(
    images: ImageData, every: Sequence[int], steps: int, seeds: int
) -> dict[str, dict[int, Swept]]:
    """Train apart, with the mean of the weights every so many steps, on both deals of the images.

    Returns:
        {deal: {steps between two means: result}}.
    """
    results: dict[str, dict[int, Swept]] = {deal: {} for deal in DEALS}
    with init() as world:
        for deal, period in product(DEALS, every):
            accuracies, meter = [], NetworkMeter()
            for seed in range(seeds):
                model = _network(world, seed)
                mine = _batches(images, world, deal, 32, seed)
                for _ in _training(model, mine, steps, average_ranks(period, meter.all_reduce)):
                    pass
                accuracies.append(_accuracy(model, images, world))
            results[deal][period] = Swept(meter.bytes_sent / seeds, accuracies)
    return results


class NormRun(NamedTuple):
    """One kind of batch norm on one deal: for each seed loss at the end and accuracy; each step."""

    losses: list[float]
    accuracies: list[float]
    seconds: list[float]


def norms(images: ImageData, batch: int, steps: int, seeds: int) -> dict[str, dict[str, NormRun]]:
    """Race plain against synchronized batch norm, steps in turns, on both deals of the images.

    The loss reported is the synchronized network's; bytes and times are of both together.

    Returns:
        {deal: {kind of norm: result}}, of this rank.
    """
    number, total = count(), len(DEALS) * seeds * steps
    results = {deal: {norm: NormRun([], [], []) for norm in NORMS} for deal in DEALS}
    trained: list[tuple[NormRun, nn.Module]] = []
    with init() as world:
        for deal, seed in product(DEALS, range(seeds)):
            plain, meter = _network(world, seed), NetworkMeter()
            networks = (plain, synchronize_batch_norm(plain, meter.all_reduce))
            wrapped = [data_parallel(network, meter=meter) for network in networks]
            batches = [_batches(images, world, deal, batch, seed) for _ in NORMS]
            history = []
            for pair in zip(*map(_training, wrapped, batches, [steps] * 2), strict=True):
                history.append(pair)
                sent, waiting = meter.take()
                step, loss = next(number), pair[1].loss
                tell(step, loss, steps=total, bytes_sent=sent, waiting=waiting)
            for run, taken in zip(results[deal].values(), zip(*history, strict=True), strict=True):
                run.losses.append(fmean(step.loss for step in taken[-20:]))
                run.seconds.extend(step.seconds for step in taken)
            trained += zip(results[deal].values(), networks, strict=True)
        for run, network in trained:  # now that nobody watches the time of the steps
            run.accuracies.append(_accuracy(network, images, world))
    return results


def _batches(images: ImageData, world: World, deal: str, size: int, seed: int) -> Batches:
    """Return this rank's batches, from its own share of the images."""
    if deal == "by class":
        mine = images.train_labels % world.size == world.rank
    else:
        order = torch.randperm(len(images.train_labels), generator=torch.Generator().manual_seed(0))
        mine = order % world.size == world.rank
    return Batches(
        images.train_images[mine],
        images.train_labels[mine],
        size,
        seed=seed,
        mean=images.mean,
        std=images.std,
        memory_format=torch.channels_last,
        device=world.device,
    )


def _network(world: World, seed: int, width: int = 8) -> nn.Module:
    torch.manual_seed(seed)
    return models.convnet(width).to(world.device).to(memory_format=torch.channels_last)


def _training(model: nn.Module, batches: Batches, steps: int, *between: average_ranks) -> Training:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    warmed_up = cosine(warmup=0.1)
    return train(model, batches, optimizer, steps=steps, schedule=warmed_up, between=between)


def _accuracy(model: nn.Module, images: ImageData, world: World) -> float:
    return evaluate(model, images.test_batches(100, device=world.device))  # small, for the memory
