"""Notebook 11: what its ranks do, and what is worked out from what they return.

The functions that call `init` run on every rank: call them with `launch`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from labkit import models
from labkit.compare import STEP_TIME, Quantity, Samples
from labkit.data import ImageData
from labkit.distributed import World, init, launch
from labkit.distributed.collectives.rank_timing import interleave_ranks
from labkit.distributed.parallel.averaging import (
    AVERAGINGS,
    STEPS,
    Averaging,
    RepeatedStep,
)
from labkit.distributed.parallel.data import data_parallel
from labkit.facts import threads
from labkit.measure.quiet_profiler import without_engine_lines
from labkit.plan.efficiency import StepCost
from labkit.plan.messages import fit_cost
from labkit.table import Table
from labkit.training import SGD, Recipe, cosine
from labkit.training.task import ACCURACY

# -- is it the same as one process? ----------------------------------------------------------

Average: TypeAlias = tuple[str, Callable[[nn.Module], object]]
"""What is averaged ("gradients", before the optimizer's step, or "weights", after it), and how."""
Optimizers: TypeAlias = Mapping[str, Callable[..., torch.optim.Optimizer]]


def nothing(model: nn.Module) -> None:
    """Average nothing."""


def against_one_process(optimizers: Optimizers, averages: Mapping[str, Average]) -> Table:
    """Train in each way on two ranks, and say how far the weights are from those of one process.

    Args:
        optimizers: {name: makes one from the parameters}.
        averages: {name: what is averaged, and how}.
    """
    (alone,) = launch(weights_of, 1, optimizers=optimizers, averages={"": ("gradients", nothing)})
    ranks = launch(weights_of, 2, optimizers=optimizers, averages=averages)
    rows = []
    for way in averages:
        far = [
            max(_distance(rank[name, way], alone[name, ""]) for rank in ranks)
            for name in optimizers
        ]
        rows.append((way, *(f"{each:.0e}" for each in far)))
    note = "Distance from the weights of one process, as a part of their length. 1e-7 is rounding."
    return Table(("the ranks average", *optimizers), tuple(rows), note)


def _distance(weights: Tensor, wanted: Tensor) -> float:
    length = torch.linalg.vector_norm
    return float(length(weights - wanted) / length(wanted))


def weights_of(
    optimizers: Optimizers, averages: Mapping[str, Average]
) -> dict[tuple[str, str], Tensor]:
    """Train a small network for five steps in each way, each rank on its part of the batches.

    Returns:
        {(optimizer, average): this rank's weights}.
    """
    with init() as world:
        return {
            (name, way): _five_steps(optimizer, *average, world)
            for name, optimizer in optimizers.items()
            for way, average in averages.items()
        }


def _five_steps(
    optimizer: Callable[..., torch.optim.Optimizer],
    what: str,
    average: Callable[[nn.Module], object],
    world: World,
) -> Tensor:
    torch.manual_seed(0)  # the same weights and the same batches on all ranks
    model = models.mlp()
    trained = optimizer(model.parameters())
    for _ in range(5):
        inputs, labels = torch.randn(16, 64), torch.randint(10, (16,))
        mine = slice(world.rank, None, world.size)
        trained.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(inputs[mine]), labels[mine]))
        if what == "gradients":
            average(model)
        trained.step()
        if what == "weights":
            average(model)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# -- times -----------------------------------------------------------------------------------

ROUND_OF_STEPS = replace(STEP_TIME, scale=1e3 / STEPS)
"""A round is STEPS steps of all ranks, and the slowest rank counts; it is shown as ms a step."""
SAME_WORK = replace(ROUND_OF_STEPS, name="time for the same work")


def step_of(averaging: Averaging, batch: int, world: World) -> RepeatedStep:
    """Return a step of the conv net on `batch` images a rank."""
    return RepeatedStep(averaging, models.convnet, (batch, 1, 28, 28), world.device)


def time_scaling(rounds: int, batch: int = 128) -> dict[str, list[float]]:
    """Time one process and all of them: seconds of STEPS steps.

    Returns:
        Under "one process": with one thread and all ranks' images; "one rank's part": the same with
        `batch` images; "threads": one process with all images and a thread for each rank;
        "processes": all ranks, with `batch` images and one thread each, by data parallel.
    """
    with init() as world:
        first, size = world.rank == 0, world.size
        small, large = (step_of(Averaging(), n, world) for n in (batch, size * batch))
        together = step_of(AVERAGINGS["DDP, tuned"], batch, world)

        def alone(work: RepeatedStep, count: int) -> None:
            if first:  # the others wait at the next barrier
                with threads(count):
                    work.steps()

        arms: dict[str, Callable[[], object]] = {
            "one process": partial(alone, large, 1),
            "one rank's part": partial(alone, small, 1),
            "threads": partial(alone, large, size),
            "processes": together.steps,
        }
        return interleave_ranks(arms, rounds)


def time_costs(rounds: int) -> StepCost:
    """Measure what a step of the conv net costs: a line through two batches, and two messages."""
    few, many, short, long = 8, 128, 2**10, 2**22
    with init() as world:
        work = {n: step_of(Averaging(), n, world) for n in (few, many)}
        sent = {n: torch.zeros(n // 4, device=world.device) for n in (short, long)}
        arms: dict[str, Callable[[], object]] = {f"{n} images": w.step for n, w in work.items()}
        arms |= {f"{n} bytes": partial(dist.all_reduce, tensor) for n, tensor in sent.items()}
        times = interleave_ranks(arms, rounds)
        small, large = (median(times[f"{n} images"]) for n in (few, many))
        # On a noisy machine the line may slope down or start below zero; a cost cannot.
        image = max(1e-9, (large - small) / (many - few))
        message = fit_cost({n: times[f"{n} bytes"] for n in (short, long)})
        size = sum(p.numel() * p.element_size() for p in work[few].model.parameters())
        return StepCost(max(0.0, small - few * image), image, message, size)


# -- one step, as a profile shows it -----------------------------------------------------------


class Span(NamedTuple):
    """A piece of work of one rank: "forward", "backward", "optimizer" or "sending"; in seconds."""

    what: str
    start: float
    end: float


def timeline(batch: int = 128, bucket_mib: float = 0.05) -> list[Span]:
    """Profile one step and return what this rank did when; time starts with the forward pass."""
    with init() as world:
        way = Averaging(partial(data_parallel, bucket_mib=bucket_mib))
        work = step_of(way, batch, world)
        for _ in range(4):  # the first ones build kernels and sort the buckets
            work.step()
        with without_engine_lines(), profile(activities=[ProfilerActivity.CPU]) as seen:
            dist.barrier()
            work.step()
        return spans((e.name, e.time_range.start, e.time_range.end) for e in seen.events())


def spans(events: Iterable[tuple[str, float, float]]) -> list[Span]:
    """Return the spans among a profile's events (name, start and end in microseconds)."""
    names = {"gloo:all_reduce": "sending", "nccl:all_reduce": "sending"}
    names |= {name: name for name in ("forward", "backward", "optimizer")}
    found = [Span(names[name], *times) for name, *times in events if name in names]
    origin = min(span.start for span in found if span.what == "forward")
    moved = (Span(s.what, 1e-6 * (s.start - origin), 1e-6 * (s.end - origin)) for s in found)
    return sorted(moved, key=lambda span: span.start)


def overlap(found: Sequence[Span]) -> dict[str, float]:
    """Return how much of the sending happened behind the backward pass, for a sentence."""
    sending = sorted((s for s in found if s.what == "sending"), key=lambda span: span.start)
    backward = max(span.end for span in found if span.what == "backward")
    # Messages overlap each other, too: count each moment once.
    covered, reached = 0.0, 0.0
    for span in sending:
        covered += max(0.0, span.end - max(span.start, reached))
        reached = max(reached, span.end)
    return {
        "messages": len(sending),
        # The last one leaves when all gradients are there: it hides nothing. Nor does one that
        # starts as the last kernel ends.
        "early": sum(span.start < 0.999 * backward for span in sending[:-1]),
        "covered": 1e3 * covered,
        "step": 1e3 * max(span.end for span in found if span.what != "sending"),
    }


# -- the learning rate of a large batch --------------------------------------------------------

SMALL, FACTOR, RATE, WARMUP = 32, 16, 0.02, 0.2
_LARGE = {"batch_size": SMALL * FACTOR, "schedule": cosine()}
RULES: dict[str, dict[str, Any]] = {
    "small batch": {"batch_size": SMALL, "schedule": cosine(), "optimizer": SGD(lr=RATE)},
    "same rate": {**_LARGE, "optimizer": SGD(lr=RATE)},
    "scaled rate": {**_LARGE, "optimizer": SGD(lr=RATE * FACTOR)},
    "scaled rate, warm-up": {
        **_LARGE,
        "optimizer": SGD(lr=RATE * FACTOR),
        "schedule": cosine(warmup=WARMUP),
    },
}
"""What to do with the learning rate when FACTOR ranks make the batch so much larger."""


def train_rules(images: ImageData, epochs: int, seeds: int) -> dict[str, dict[int, Tensor]]:
    """Train with each rule; the ranks share the seeds.

    Each training is one process with the joined batch. Many ranks would differ a little, because
    batch norm takes its statistics from each rank's part.

    Returns:
        {rule: {seed: for each test image 1 if it was right, else 0}} for this rank's seeds.
    """
    with init() as world:
        mine = range(world.rank, seeds, world.size)
        base = Recipe(partial(models.convnet, width=8), images, epochs=epochs)
        return {
            name: {seed: _scores(base.but(**rule, seed=seed)) for seed in mine}
            for name, rule in RULES.items()
        }


def _scores(recipe: Recipe) -> Tensor:
    training = recipe.training()
    for _ in training:
        pass
    return recipe.scores(training.answering)


def accuracies(ranks: Sequence[Mapping[str, Mapping[int, Tensor]]]) -> Samples:
    """Return the accuracies of trainings that were shared out; the first one is the baseline.

    Args:
        ranks: of each {training: {seed: for each test image 1 if it was right, else 0}}.
    """
    samples = Samples(ranks[0])
    for rank in ranks:
        for name, by_seed in rank.items():
            for seed, right in by_seed.items():
                samples.add_scores(name, Quantity.of(ACCURACY), right, seed=seed)
    return samples
