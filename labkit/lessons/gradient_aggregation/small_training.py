"""The small training that all experiments of notebook 12 share, and what they compare it on."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import torch
from torch import Tensor, nn

from labkit import models
from labkit.compare import Quantity
from labkit.data import Batches
from labkit.data.images import ImageData
from labkit.distributed import World
from labkit.distributed.collectives.coalesced import coalesced_mean
from labkit.training import Between, Training, classify, cosine, scores, train

DEALS = ("shuffled", "by class")
CORRECT = Quantity.of(classify.metric)
END_LOSS = Quantity(
    "training loss at the end", "nats", "difference", "lower", "higher", 0.01, once_a_seed=True
)


def end_of(losses: Sequence[float]) -> float:
    """Return the mean of the last tenth of a training's losses, one of them at the least."""
    return fmean(losses[-max(1, len(losses) // 10) :])


def rank_batches(images: ImageData, world: World, deal: str, size: int, seed: int) -> Batches:
    """Return this rank's batches, from its own share of the images.

    Args:
        images: all of them.
        world: says who this rank is.
        deal: one of DEALS. By class, rank 0 of two has the even classes and rank 1 the odd ones.
        size: of a rank's batch.
        seed: of the order; who has which images does not depend on it.
    """
    if deal == "by class":
        mine = images.train_labels % world.size == world.rank
    else:
        order = torch.randperm(len(images.train_labels), generator=torch.Generator().manual_seed(0))
        mine = order % world.size == world.rank
    part = replace(
        images, train_images=images.train_images[mine], train_labels=images.train_labels[mine]
    )
    layout = torch.channels_last
    return part.batches(size, seed=seed, memory_format=layout, device=world.device)


def network(world: World, seed: int, width: int = 8) -> nn.Module:
    """Return the conv net, the same on all ranks."""
    torch.manual_seed(seed)
    return models.convnet(width).to(world.device).to(memory_format=torch.channels_last)


def training(model: nn.Module, batches: Batches, steps: int, *between: Between) -> Training:
    """Return the training of a model on this rank's batches."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = cosine(warmup=0.1)
    return train(model, batches, optimizer, steps=steps, schedule=schedule, between=between)


def mean_scores(model: nn.Module, images: ImageData, world: World) -> Tensor:
    """Return the mean over all ranks' networks of the score of each test image, (images,)."""
    batches = images.test_batches(100, device=world.device)  # small, for the memory
    found = scores(model, batches).to(world.device)
    coalesced_mean([found])
    return found.cpu()
