"""Notebook 14: the trainings and timings that its cells run."""

import copy
from collections.abc import Callable, Iterable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from labkit.compression import prune
from labkit.compression.prune.magnitude import Masks
from labkit.facts import default_device
from labkit.lessons.memory import give_back_memory
from labkit.measure import Timing, latencies
from labkit.training import Recipe, Step

After: TypeAlias = Callable[[nn.Module, Step, float], None]
"""What is done after a step: (model, the step, share of the training that is done)."""

CHANNELS, SIDE, IMAGES = 64, 14, 32
"""Of the convolution whose channels are removed one by one: inputs, pixels a side, batch."""


def nothing(_model: nn.Module, _step: Step, _done: float) -> None:
    """Do nothing after a step."""


def trained(recipe: Recipe, after: After = nothing) -> nn.Module:
    """Return the recipe's model after its training, in evaluation mode."""
    training = recipe.training()
    for step in training:
        after(training.model, step, (step.index + 1) / len(training))
    model = training.model.eval()
    del training  # and with it gradients' and optimizer's state
    give_back_memory()
    return model


def hold(masks: Masks) -> After:
    """Return what keeps masked weights at zero."""
    return lambda model, _step, _done: prune.apply_masks(model, masks)


def grow(final: float, *, until: float = 0.7, every: int = 10) -> After:
    """Return what prunes little by little: the smallest weights of all layers, cubic in time.

    Args:
        final: sparsity at the end.
        until: share of the training after which it stays.
        every: steps between two choices of masks; in between they are held.
    """
    masks: Masks = {}

    def after(model: nn.Module, step: Step, done: float) -> None:
        if step.index % every == 0 or done == 1:
            wanted = prune.cubic_sparsity(min(1.0, done / until), final)
            masks.update(prune.magnitude_masks(model, wanted, together=True))
        prune.apply_masks(model, masks)

    return after


@torch.no_grad()
def _shrink(model: nn.Module, by: float) -> None:
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.affine:
            smaller = (norm.weight.abs() - by).clamp(min=0)
            norm.weight.copy_(norm.weight.sign() * smaller)


def shrink(penalty: float) -> After:
    """Return what pulls every batch-norm scale towards zero by lr x penalty, and stops it there.

    That is gradient descent on the sum of |scale|, with the exact zeros that a plain gradient step
    would jump across (a proximal step).
    """
    return lambda model, step, _done: _shrink(model, step.lr * penalty)


def cut(
    model: nn.Module,
    share: float,
    images: Tensor,
    batches: Iterable[prune.criteria.Batch],
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
    graph = prune.channel_graph(model, images)
    left = min(1.0, share * (of or graph.flops) / graph.flops)
    scores = prune.taylor_scores(graph, batches)
    keep = prune.choose_for_flops(graph, scores, left, multiple=multiple)
    return prune.remove_channels(model, graph, keep)


def shuffled(masks: Masks) -> Masks:
    """Return masks that keep as many weights of each tensor, at random places."""
    generator = torch.Generator().manual_seed(0)
    orders = {
        name: torch.randperm(mask.numel(), generator=generator) for name, mask in masks.items()
    }
    return {name: mask.flatten()[orders[name]].view_as(mask) for name, mask in masks.items()}


def renewed(model: nn.Module) -> nn.Module:
    """Return a copy of the model with new random weights."""
    copied = copy.deepcopy(model)
    for module in copied.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            module.reset_parameters()
    return copied


@torch.no_grad()
def difference(some: nn.Module, other: nn.Module, images: Tensor) -> float:
    """Return the largest difference of an output between two models in evaluation mode."""
    return float((some.eval()(images) - other.eval()(images)).abs().max())


def widths(kept: Iterable[int], rounds: int) -> dict[int, Timing]:
    """Return the times of one 3x3 convolution with so many of its CHANNELS outputs kept."""
    device = default_device()
    torch.manual_seed(0)
    images = torch.rand(IMAGES, CHANNELS, SIDE, SIDE, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    layers = {str(n): nn.Conv2d(CHANNELS, n, 3, padding=1, bias=False).to(device) for n in kept}
    models = {n: layer.to(memory_format=torch.channels_last) for n, layer in layers.items()}
    return {int(name): timing for name, timing in latencies(models, images, rounds).items()}
