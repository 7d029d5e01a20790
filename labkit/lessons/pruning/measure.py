"""Pruning: what its notebook measures besides what the library offers."""

from collections.abc import Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from labkit.compare import SIZE, Quantity, Samples, Verdict, graded
from labkit.compression import prune
from labkit.compression.prune.choice import Keep
from labkit.facts import default_device
from labkit.lessons.memory import give_back_memory
from labkit.measure import Timing, flops, latencies, peak_memory
from labkit.table import Table
from labkit.training import Recipe
from labkit.training.task import Batch

CHANNELS, SIDE, IMAGES = 64, 14, 32
"""Of the convolution whose channels are removed one by one: inputs, pixels a side, batch."""
VECTOR = 8
"""Channels that the narrower vector units work on at once."""
A_CHANNEL = Quantity.time("time a channel", header="ms a channel")


def trained(recipe: Recipe) -> nn.Module:
    """Return the recipe's model after its training; what the training needed is given back."""
    model = recipe.trained()
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
        model: left untouched.
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


def with_sizes(models: Mapping[str, nn.Module], recipe: Recipe) -> Samples:
    """Return accuracy and compressed size of models; the first is the baseline."""
    samples = graded(models, recipe)
    for name, model in models.items():
        samples.add(name, SIZE, prune.compressed_bytes(model))
    return samples


def widths(kept: Iterable[int], rounds: int) -> dict[int, Timing]:
    """Return the times of one 3x3 convolution with so many of its CHANNELS outputs kept."""
    device = default_device()
    torch.manual_seed(0)
    images = torch.rand(IMAGES, CHANNELS, SIDE, SIDE, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    layers = {str(n): nn.Conv2d(CHANNELS, n, 3, padding=1, bias=False).to(device) for n in kept}
    models = {n: layer.to(memory_format=torch.channels_last) for n, layer in layers.items()}
    return {int(name): timing for name, timing in latencies(models, images, rounds).items()}


def one_too_many(times: Mapping[int, Timing]) -> dict[str, Verdict]:
    """Return what a channel costs just above each multiple of VECTOR, compared with the multiple.

    By channel, so that a convolution whose time follows its operations shows no difference.

    Args:
        times: of the convolution, by channels.
    """
    each = {str(n): [seconds / n for seconds in timing.seconds] for n, timing in times.items()}
    samples = Samples.of_timings(each, A_CHANNEL)
    above = [n for n in times if n % VECTOR == 1 and n - 1 in times]
    return {f"{n} channels": samples.verdict(str(n), over=str(n - 1)) for n in above}


def groups_table(graph: prune.ChannelGraph) -> Table:
    """Return the groups of channels, and the layers that make them."""
    rows = [
        (name, str(len(group.units)), ", ".join(group.layers))
        for name, group in graph.groups.items()
    ]
    rows += [(layer, "–", f"stays: {why}") for layer, why in graph.kept.items()]
    return Table(("group", "channels", "layers that make them"), tuple(rows))


def peak_bytes(keep: Keep, images: Tensor) -> int:
    """Return the peak of a forward pass of the conv net, from the numbers of channels.

    In a residual block its input is alive all the time. Beside it are, at the first norm, that
    norm's input and output; at the second norm, its input and output and what the first half gave;
    at the end, the result, the sum, and the ReLU of that. The input of the first block stays alive
    through the others, as an argument of the call that runs all of them.
    """
    kept = {name: int(chosen.sum()) for name, chosen in keep.items()}
    height, width = (size // 2 for size in images.shape[-2:])  # behind the stem
    first = entering = kept["stem"] * height * width
    held, peak = 0, 0
    for block, last in enumerate(("stem", "blocks.1.conv2", "blocks.2.conv2")):
        if block:  # with a stride of 2
            height, width, held = -(-height // 2), -(-width // 2), first
        inner, outer = (kept[n] * height * width for n in (f"blocks.{block}.conv1", last))
        peak = max(peak, held + entering + max(2 * inner, inner + 2 * outer, 3 * outer))
        entering = outer
    return len(images) * peak * images.element_size()


@torch.no_grad()
def size_table(
    graph: prune.ChannelGraph, keep: Keep, models: tuple[nn.Module, nn.Module], images: Tensor
) -> Table:
    """Return what was predicted of the smaller model and what is measured.

    Args:
        graph: of the whole model.
        keep: the choice.
        models: the whole model and the smaller one, in evaluation mode.
        images: a batch, for the memory; the operations are those of one image.
    """
    predicted = prune.predict_size(graph, keep)
    foretold = [predicted.parameters, predicted.flops, predicted.bytes, peak_bytes(keep, images)]
    names = ("parameters", "operations an image", "bytes of all tensors", "peak bytes of a batch")
    whole, smaller = ([*_measured(model, images)] for model in models)
    rows = tuple(
        (name, f"{before:,}", f"{said:,}", f"{after:,}", f"{after / before:.0%}")
        for name, before, said, after in zip(names, whole, foretold, smaller, strict=True)
    )
    return Table(("", "whole", "smaller: predicted", "smaller: measured", "left"), rows)


def _measured(model: nn.Module, images: Tensor) -> tuple[int, int, int, int]:
    parameters = sum(p.numel() for p in model.parameters())
    held = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    model(images)  # kernels are built at the first call
    peak = peak_memory(lambda: model(images), device=images.device)
    return parameters, flops(lambda: model(images[:1])), held, peak
