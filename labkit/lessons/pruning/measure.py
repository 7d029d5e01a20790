"""Notebook 14: the trainings and timings that its cells run."""

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn

from labkit.compression import prune
from labkit.facts import default_device
from labkit.lessons.memory import give_back_memory
from labkit.measure import Timing, flops, latencies
from labkit.training import Recipe
from labkit.training.task import Batch

CHANNELS, SIDE, IMAGES = 64, 14, 32
"""Of the convolution whose channels are removed one by one: inputs, pixels a side, batch."""


def trained(recipe: Recipe) -> nn.Module:
    """Return the recipe's model after its training, in evaluation mode."""
    training = recipe.training()
    for _ in training:
        pass
    model = training.answering.eval()
    del training  # and with it gradients' and optimizer's state
    give_back_memory()
    return model


def cut(
    model: nn.Module,
    share: float,
    images: Tensor,
    batches: Iterable[Batch],
    *,
    multiple: int = 1,
    of: int | None = None,
) -> nn.Module:
    """Return the model with `share` of its operations left, chosen by the Taylor criterion.

    Args:
        share: see `prune.choose_for_flops`.
        images: an example.
        batches: for the criterion.
        multiple: see `prune.choose`.
        of: operations that `share` refers to; by default those of `model`.
    """
    give_back_memory()  # of the training before
    whole = flops(lambda: model(images))
    left = min(1.0, share * (of or whole) / whole)
    criterion = partial(prune.taylor_scores, batches=batches)
    return prune.channels(model, images, flops=left, criterion=criterion, multiple=multiple)


def widths(kept: Iterable[int], rounds: int) -> dict[int, Timing]:
    """Return the times of one 3x3 convolution with so many of its CHANNELS outputs kept."""
    device = default_device()
    torch.manual_seed(0)
    images = torch.rand(IMAGES, CHANNELS, SIDE, SIDE, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    layers = {str(n): nn.Conv2d(CHANNELS, n, 3, padding=1, bias=False).to(device) for n in kept}
    models = {n: layer.to(memory_format=torch.channels_last) for n, layer in layers.items()}
    return {int(name): timing for name, timing in latencies(models, images, rounds).items()}
