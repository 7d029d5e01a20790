"""Notebook 15: what its cells measure, where that takes more than a few lines."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.compare.intervals import matched_difference, scaled
from labkit.compression.agreement import decibels, distance
from labkit.compression.quantize.affine import Grid, grid, round_trip
from labkit.data import TextData
from labkit.lessons.memory import give_back_memory
from labkit.measure import Estimate
from labkit.models import ConvNet, Transformer, next_token_loss, transformer
from labkit.seeds import seed_everything
from labkit.training import AdamW, next_token, one_cycle, train

Batch: TypeAlias = tuple[Tensor, Tensor]
Sweep: TypeAlias = dict[tuple[str, int], tuple[Tensor, dict[int, tuple[float, float]]]]
"""{(what is rounded, bits): (its values, {clip in % of the largest: (error, accuracy), in %})}."""

WEIGHTS, ACTIVATIONS = "weights of the stem", "activations after the stem"
SAMPLE = 100_000  # values of a tensor that a histogram is drawn from, at most


@dataclass(frozen=True)
class Quality:
    """How well a model answers, beside the first one.

    Attributes:
        accuracy: percent of the test images.
        lost: points of accuracy less than the first model, paired by image.
        error: how far its logits are from the first model's, in percent of their length.
    """

    accuracy: float
    lost: Estimate
    error: float


@torch.no_grad()
def qualities(models: Mapping[str, nn.Module], test: Sequence[Batch]) -> dict[str, Quality]:
    """Return the quality of each model on the test batches; the first is the reference."""
    labels = torch.cat([labels for _, labels in test])
    answers = {n: torch.cat([model(inputs) for inputs, _ in test]) for n, model in models.items()}
    give_back_memory()
    right = {name: logits.argmax(dim=1) == labels for name, logits in answers.items()}
    first = next(iter(models))
    return {
        name: Quality(
            100 * float(right[name].float().mean()),
            scaled(
                matched_difference(
                    int((right[first] & ~right[name]).sum()),
                    int((right[name] & ~right[first]).sum()),
                    len(labels),
                ),
                100,
            ),
            100 * distance(answers[first], logits),
        )
        for name, logits in answers.items()
    }


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
    optimizer = AdamW(lr=2e-3).build(model)
    batches = text.batches(8)
    for _ in train(model, batches, optimizer, task=next_token(), schedule=one_cycle(), steps=steps):
        pass
    give_back_memory()
    return model.eval()


@torch.no_grad()
def next_token_losses(
    models: Mapping[str, nn.Module], batches: Sequence[Batch]
) -> dict[str, float]:
    """Return the mean loss of each model, in nats a token."""
    return {
        name: sum(float(next_token_loss(model(x), y)) for x, y in batches) / len(batches)
        for name, model in models.items()
    }


def torchao_eager(model: nn.Module) -> nn.Module:
    """Return a copy whose linear layers torchao's `quantize_` made int8, without a compiler."""
    from labkit.compression.quantize.torchao_import import pt2e

    pt2e()  # torchao comes in without its warning
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    copied = copy.deepcopy(model)
    quantize_(copied, Int8DynamicActivationInt8WeightConfig())
    return copied
