"""The lab's conv net, trained: what the benchmarks of pruning and quantization begin with.

What was trained once is kept for the life of the process, so that both share it. The models that
are returned are shared as well: copy them before you change anything.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice

import torch
from torch import Tensor, nn

from labkit import SGD, Recipe, data, models
from labkit.compression import prune
from labkit.data import ImageData
from labkit.distributed import launch
from labkit.facts import threads
from labkit.measure import latencies
from labkit.measure.statistics import Estimate, mean_interval
from labkit.training import classify, cosine, fast_precision


@dataclass(frozen=True)
class Scale:
    """How much is trained and measured.

    Attributes:
        widths: of the conv nets.
        seeds: nets of each width.
        train, test: images.
        epochs: of the first training.
        more: epochs after pruning.
        rounds: in which the variants are timed in turn.
        turns: processes in which that is done anew.
        batch: images that are timed.
    """

    widths: tuple[int, ...]
    seeds: int
    train: int
    test: int
    epochs: int
    more: int
    rounds: int
    turns: int
    batch: int


FULL = Scale(
    widths=(32, 64),
    seeds=3,
    train=60_000,
    test=10_000,
    epochs=3,
    more=4,
    rounds=30,
    turns=20,
    batch=256,
)
QUICK = Scale(
    widths=(16,), seeds=2, train=1_500, test=500, epochs=2, more=1, rounds=6, turns=2, batch=32
)

ONE_IMAGE = torch.zeros(1, 1, 28, 28)


@cache
def images(scale: Scale) -> ImageData:
    return data.fashion(train=scale.train, test=scale.test)


def recipe(scale: Scale, width: int, seed: int) -> Recipe:
    return Recipe(
        partial(models.convnet, width=width),
        images(scale),
        optimizer=SGD(lr=0.2),
        epochs=scale.epochs,
        batch_size=256,
        task=classify(0.1),
        precision=fast_precision(),
        device="cpu",
        seed=seed,
    )


@cache
def convnet(scale: Scale, width: int, seed: int) -> nn.Module:
    """Return the trained net."""
    return run_through(recipe(scale, width, seed))


def train_more(
    scale: Scale, model: nn.Module, width: int, seed: int, epochs: int, rate: float
) -> nn.Module:
    """Return a copy of the model that was trained on with a lower rate, in a new order."""
    more = recipe(scale, width, seed + 100).but(
        model=lambda: copy.deepcopy(model),
        optimizer=SGD(lr=rate),
        schedule=cosine(warmup=0.1),
        epochs=epochs,
    )
    return run_through(more)


def run_through(recipe: Recipe) -> nn.Module:
    training = recipe.training()
    for _ in training:
        pass
    return training.model.eval()


def accuracy(scale: Scale, model: nn.Module) -> float:
    """Return the per cent of all test images that the model gets right."""
    return 100 * recipe(scale, width=1, seed=0).evaluate(model)


def sample(scale: Scale) -> list[tuple[Tensor, Tensor]]:
    """Return the first eight batches of 128 training images (fewer if there are no more)."""
    batches = images(scale).batches(128, memory_format=torch.channels_last)
    return list(islice(batches, 8))


def folded(model: nn.Module) -> nn.Module:
    """Return the net as it is deployed: batch norm folded into the convolutions."""
    return prune.fold_batch_norm(model, ONE_IMAGE)[0]


def example(scale: Scale) -> Tensor:
    """Return one batch of test images to measure the time with."""
    batches = images(scale).test_batches(scale.batch, memory_format=torch.channels_last)
    return next(iter(batches))[0]


def timed_in_turns(
    variants: Mapping[str, nn.Module], inputs: Tensor, rounds: int, turns: int
) -> dict[str, list[float]]:
    """Return the middle seconds of each variant, turn by turn, each turn in a new process.

    Where a model's memory happens to lie moves its time by a tenth for as long as a process lives,
    however often it is measured there. So what one process finds is one observation.
    """
    found = [
        launch(_turn, nprocs=1, variants=dict(variants), inputs=inputs, rounds=rounds)[0]
        for _ in range(turns)
    ]
    return {name: [turn[name] for turn in found] for name in variants}


def _turn(variants: Mapping[str, nn.Module], inputs: Tensor, rounds: int) -> dict[str, float]:
    with threads(1):
        return {name: each.median for name, each in latencies(variants, inputs, rounds).items()}


def lost(before: Sequence[float], after: Sequence[float]) -> Estimate:
    """Return the points of accuracy that were lost, paired by seed."""
    return mean_interval([b - a for b, a in zip(before, after, strict=True)])


def exactly(value: float) -> Estimate:
    """Return a figure that was counted, not measured."""
    return Estimate(value, value, value, 1)
