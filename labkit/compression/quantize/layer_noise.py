"""Which layers suffer from few bits? Quantize one at a time and listen to the noise.

Rounding adds noise to what a layer gives. How loud it is against the signal is said in decibels,
10 log10(signal^2 / noise^2): 20 dB is noise of a tenth of the signal, 40 dB of a hundredth. One bit
more halves the step, so it is worth 6 dB. A layer that stays far below the others has a few huge
numbers in its input or its weights, which stretch the range and leave few steps for the rest.

    errors = layer_errors(model, batches)
    smaller = quantize.static(model, batches, keep_float=leave_in_float(errors))

Each layer is fed what it gets in the float model, so the figures are its own. They do not tell how
far the noise is carried, nor whether an answer changes: that is what the test set is for. To
evaluate the model once for each layer instead costs more, and at 8 bits shows mostly chance.

Source: "signal to quantization noise" and its 6 dB a bit are Bennett's, "Spectra of Quantized
Signals", 1948.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from labkit.compression.agreement import in_decibels
from labkit.compression.checks import copied
from labkit.compression.quantize.affine import Grid, grid, grid_of, round_trip
from labkit.compression.quantize.exported import STATIC_LAYERS
from labkit.compression.quantize.ranges import RANGES, check_ranges

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class LayerError:
    """Signal to noise of one layer's output, in decibels; infinite where nothing was lost.

    Attributes:
        name: of the layer in the model.
        weights: with its weights quantized alone.
        activations: with its input quantized alone.
        both: with both.
    """

    name: str
    weights: float
    activations: float
    both: float


@torch.no_grad()
def layer_errors(
    model: nn.Module, batches: Iterable[Batch], bits: int = 8, ranges: str = "min-max"
) -> list[LayerError]:
    """Return the error of each convolution and linear layer, in the order of the model.

    Weights have a symmetric grid for each output channel, the input one affine grid. A layer that
    the forward pass does not call is left out. All inputs are held in memory: a few hundred
    examples are enough.

    Args:
        model: left untouched; looked at in evaluation mode.
        batches: (inputs, targets) on the model's device; the targets are not used.
        bits: of weights and inputs, 2 to 8.
        ranges: how an input's clipping range is found, a name in `RANGES`.

    Raises:
        TypeError: `model` is not a module.
        ValueError: `ranges` or `bits` is not known, `batches` is empty, or the model calls no such
            layer.
    """
    check_ranges(ranges)
    looked_at = copied(model).eval()
    inputs = _inputs(looked_at, batches)
    return [
        _error(name, layer, inputs[layer], bits, ranges)
        for name, layer in looked_at.named_modules()
        if layer in inputs
    ]


def leave_in_float(errors: Iterable[LayerError], decibels: float = 20.0) -> tuple[str, ...]:
    """Return the names of the layers below so many decibels, the worst first: for `keep_float`.

    Args:
        errors: from `layer_errors`.
        decibels: 20 is noise of a tenth of the signal.

    Raises:
        ValueError: `decibels` is not a number.
    """
    if isinstance(decibels, bool) or not isinstance(decibels, int | float) or math.isnan(decibels):
        raise ValueError(f"decibels must be a number, got {decibels!r}")
    noisy = [error for error in errors if error.both < decibels]
    return tuple(error.name for error in sorted(noisy, key=lambda error: error.both))


def _inputs(model: nn.Module, batches: Iterable[Batch]) -> dict[nn.Module, list[Tensor]]:
    """Run the model, and return layer -> what it was fed, call by call."""
    found: dict[nn.Module, list[Tensor]] = {}

    def note(layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        given = args[0] if args else named["input"]
        found.setdefault(layer, []).append(given.clone())  # what follows may work in place

    layers = [layer for layer in model.modules() if isinstance(layer, STATIC_LAYERS)]
    hooks = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    seen = 0
    for inputs, _ in batches:
        model(inputs)
        seen += 1
    for hook in hooks:
        hook.remove()
    if seen == 0:
        raise ValueError("batches is empty: give some inputs to look at")
    if not found:
        raise ValueError("model calls no convolution or linear layer: nothing to quantize")
    return found


def _error(name: str, layer: nn.Module, inputs: list[Tensor], bits: int, ranges: str) -> LayerError:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    few = {"weight": _round(weight, grid_of(weight, bits, symmetric=True, dim=0))}
    steps = grid(*RANGES[ranges](torch.cat([x.flatten() for x in inputs]), bits), bits)
    signal, noise = 0.0, [0.0, 0.0, 0.0]
    for x in inputs:
        y, x_few = layer(x), _round(x, steps)
        others = functional_call(layer, few, x), layer(x_few), functional_call(layer, few, x_few)
        signal += _energy(y)
        noise = [before + _energy(y - z) for before, z in zip(noise, others, strict=True)]
    return LayerError(name, *(in_decibels(signal, n) for n in noise))


def _round(values: Tensor, steps: Grid) -> Tensor:
    return round_trip(values, steps).to(values.dtype)


def _energy(values: Tensor) -> float:
    return float(values.double().square().sum())
