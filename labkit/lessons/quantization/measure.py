"""Quantization: what its notebook measures besides what the library offers."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.compare import LATENCY, SIZE, Quantity, Samples
from labkit.compression.agreement import decibels, distance
from labkit.compression.quantize.affine import Grid, grid, grid_of, round_trip
from labkit.data import TextData
from labkit.lessons.memory import give_back_memory
from labkit.measure import Timing
from labkit.models import ConvNet, Transformer, transformer
from labkit.seeds import seed_everything
from labkit.table import Table
from labkit.training import AdamW, Task, classify, next_token, one_cycle, scores, train

Batch: TypeAlias = tuple[Tensor, Tensor]
DISTANCE = Quantity(
    "distance of the answers",
    "%",
    "difference",
    better="nearer",
    worse="farther",
    margin=0.1,
    exact=True,
    scale=100,
    difference_unit="points",
)
"""Between the outputs of a model and those of the first one, in percent of their length."""
Sweep: TypeAlias = dict[tuple[str, int], tuple[Tensor, dict[int, tuple[float, float]]]]
"""{(what is rounded, bits): (its values, {clip in % of the largest: (error, accuracy), in %})}."""

WEIGHTS, ACTIVATIONS = "weights of the stem", "activations after the stem"
SAMPLE = 100_000  # values of a tensor that a histogram is drawn from, at most


@torch.no_grad()
def measured(
    models: Mapping[str, nn.Module],
    test: Sequence[Batch],
    task: Task | None = None,
    *,
    sizes: Mapping[str, int] | None = None,
    times: Mapping[str, Timing] | None = None,
) -> Samples:
    """Return how well models answer the test batches, beside the first one.

    Args:
        models: {name: model}; the first is the reference.
        test: batches (inputs, targets).
        task: classification when left out.
        sizes: bytes of their files, if they are to be compared.
        times: of a batch, interleaved, if they are to be compared.
    """
    task = classify() if task is None else task
    metric = Quantity.of(task.metric)
    samples = Samples(models, (metric, DISTANCE, *([SIZE] if sizes else [])))
    first = None
    for name, model in models.items():
        samples.add_scores(name, metric, scores(model, test, task))
        answers = model(test[0][0])  # of one batch: those of a language model are large
        first = answers if first is None else first
        samples.add(name, DISTANCE, distance(first, answers))
        if sizes:
            samples.add(name, SIZE, sizes[name])
        for number, seconds in enumerate(times[name].seconds if times else ()):
            samples.add(name, LATENCY, seconds, round=number)
    give_back_memory()
    return samples


def grids_table(weight: Tensor, bits: Sequence[int] = (8, 4)) -> Table:
    """Return how loud a channel of a weight (outputs, …) is against its rounding, on each grid."""
    kinds = {
        "affine, per tensor": (False, None),
        "symmetric, per tensor": (True, None),
        "affine, per channel": (False, 0),
        "symmetric, per channel": (True, 0),
    }
    rows = []
    for name, (symmetric, dim) in kinds.items():
        kept = [round_trip(weight, grid_of(weight, b, symmetric, dim)) for b in bits]
        rows.append((name, *(f"{channel_decibels(weight, rounded):.1f} dB" for rounded in kept)))
    head = ("grid", *(f"{b} bits" for b in bits))
    return Table(head, tuple(rows), "Signal to noise, median of the channels.")


def channel_gain(weight: Tensor, bits: int = 4) -> float:
    """Return how many decibels a scale for each channel gains over one for the whole weight."""
    whole, each = (
        channel_decibels(weight, round_trip(weight, grid_of(weight, bits, True, dim)))
        for dim in (None, 0)
    )
    return each - whole


def channel_decibels(exact: Tensor, rounded: Tensor) -> float:
    """Return the median over the channels (outputs, …): each of them counts alike, however small.

    So it is in a network, where norms rescale what each channel gives.
    """
    pairs = zip(exact, rounded, strict=True)
    return median(decibels(one, other) for one, other in pairs if one.any())


def clipped_grid(values: Tensor, bits: int, share: float) -> Grid:
    """Return the grid up to `share` percent of the largest value, on both sides if needed."""
    end = share / 100 * float(values.abs().max())
    both = bool(values.min() < 0)
    return grid(-end if both else 0.0, end, bits, symmetric=both)


@torch.no_grad()
def clip_sweep(model: ConvNet, batch: Batch, bits: Iterable[int], shares: Iterable[int]) -> Sweep:
    """Return what becomes of the model when one tensor is clipped and rounded, for each range.

    The two tensors are the weights of the first layer, and what it hands on after norm and ReLU.

    Args:
        model: in evaluation mode; left untouched.
        batch: test images and labels.
        bits: of the grids.
        shares: where to clip, in percent of the largest value.
    """
    images, labels = batch
    shares, stem = list(shares), model.stem
    handed_on = F.relu(model.norm(stem(images)))

    def convolved(weight: Tensor) -> Tensor:
        return F.conv2d(images, weight, stem.bias, stem.stride, stem.padding)

    def outcome(
        values: Tensor, place: nn.Module, output: Callable[[Tensor], Tensor], steps: Grid
    ) -> tuple[float, float]:
        rounded = round_trip(values, steps)
        replaced = output(rounded)
        hook = place.register_forward_hook(lambda *_: replaced)
        try:
            right = model(images).argmax(dim=1) == labels
        finally:
            hook.remove()
        return 100 * distance(values, rounded), 100 * float(right.float().mean())

    sweep: Sweep = {}
    for number in bits:
        for what, values, place, output in (
            (WEIGHTS, stem.weight.detach(), stem, convolved),
            (ACTIVATIONS, handed_on, model.norm, nn.Identity()),  # ReLU leaves it as it is
        ):
            outcomes = {
                share: outcome(values, place, output, clipped_grid(values, number, share))
                for share in shares
            }
            shown = values.flatten()[:: 1 + values.numel() // SAMPLE].clone()
            sweep[what, number] = (shown, outcomes)
    give_back_memory()
    return sweep


def language_model(text: TextData, width: int, steps: int) -> Transformer:
    """Return a transformer of two blocks, trained for a moment on the text."""
    seed_everything(0)
    model = transformer(text.vocabulary, width, depth=2, context=text.context)
    optimizer, batches = AdamW(lr=2e-3).build(model), text.batches(8)
    for _ in train(model, batches, optimizer, task=next_token(), schedule=one_cycle(), steps=steps):
        pass
    give_back_memory()
    return model.eval()


def torchao_eager(model: nn.Module) -> nn.Module:
    """Return a copy whose linear layers torchao's `quantize_` made int8, without a compiler."""
    from labkit.compression.quantize.torchao_import import pt2e

    pt2e()  # torchao comes in without its warning
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    copied = copy.deepcopy(model)
    quantize_(copied, Int8DynamicActivationInt8WeightConfig())
    return copied
