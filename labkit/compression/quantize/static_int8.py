"""Static int8: weights and activations in 8 bits, with ranges found once, on a few batches.

Calibration runs the float model on real inputs and notes what passes before each convolution and
linear layer. From then on each of these tensors has one scale, so a whole layer (product, bias,
batch norm folded in, ReLU, the sum of a residual block) runs in integers, in one kernel.

Weights: symmetric, a scale for each output channel; 8 bits, or 7 where the processor would lose
large sums otherwise (`int8_kernels()` tells). Activations: 0 ... 255 with a zero point, one scale a
tensor. Normalisation, softmax, GELU and other curves stay in float. It is the fastest way
where processors have int8 instructions (`int8_kernels()`), most of all for convolutions; where the
inputs differ much from those of the calibration, `dynamic` is safer.

Engine: torchao's PT2E with its x86 quantizer; observers and lowering are ours.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", 2017.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from labkit.compression.quantize import observers
from labkit.compression.quantize.affine import integer_range
from labkit.compression.quantize.exported import Inputs, check_keep_float, convert
from labkit.compression.quantize.int8_model import Int8Model
from labkit.compression.quantize.lowering import weight_bits
from labkit.compression.quantize.ranges import check_ranges
from labkit.compression.quantize.torchao_import import pt2e
from labkit.training import Batch


def static(
    model: nn.Module,
    batches: Iterable[Batch],
    ranges: str = "min-max",
    keep_float: Iterable[str] = (),
) -> Int8Model:
    """Return the model in int8, for inputs like those of `batches`; it takes seconds.

    Args:
        model: float32, on the CPU, in any mode; left untouched.
        batches: (inputs, targets) to calibrate on, a few hundred examples; targets are not used.
            The result takes inputs of their shape (but for the batch) and dtype.
        ranges: how a range follows from the values observed: "min-max", "percentile" or "mse".
        keep_float: names of modules (as in `named_modules`) to leave in float, with all in them.

    Raises:
        TypeError: `model` is not a module, or `keep_float` is a single string.
        ValueError: no batches, or not pairs; unknown ranges or names; values that are not finite; a
            model that is not float32 on the CPU, cannot be traced, or has no such layers.
    """
    check_ranges(ranges)
    keep = check_keep_float(model, keep_float)
    return Int8Model(*convert(model, _inputs(batches), static_quantizer(ranges), "static", keep))


def static_quantizer(ranges: str) -> Any:
    """Return torchao's quantizer for x86, with our observers."""
    torchao, activation = pt2e(), observers.classes()[0]
    activations = torchao.QuantizationSpec(
        dtype=torch.uint8,
        quant_min=0,
        quant_max=255,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=activation.with_args(ranges=ranges),
    )
    config = torchao.QuantizationConfig(activations, activations, weight_spec(), None, False)
    return torchao.Quantizer().set_global(config)


def weight_spec() -> Any:
    """Return what becomes of weights: symmetric, a scale for each output channel.

    Always stored as int8, with as many bits as the kernels here can add up.
    """
    low, high = integer_range(weight_bits(), symmetric=True)
    return pt2e().QuantizationSpec(
        dtype=torch.int8,
        quant_min=low,
        quant_max=high,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=observers.classes()[1].with_args(),
    )


def _inputs(batches: Iterable[Batch]) -> Iterator[Inputs]:
    """The inputs of each batch, checked."""
    first = None
    for batch in batches:
        if not isinstance(batch, tuple | list) or len(batch) != 2 or not torch.is_tensor(batch[0]):
            raise ValueError(
                f"batches must hold pairs (inputs, targets), got {type(batch).__name__}"
            )
        inputs = batch[0]
        first = inputs if first is None else first
        if inputs.shape[1:] != first.shape[1:] or inputs.dtype != first.dtype:
            raise ValueError(
                "batches must hold inputs of one shape (but for the batch) and dtype, got "
                f"{tuple(first.shape)} {first.dtype} and {tuple(inputs.shape)} {inputs.dtype}"
            )
        if not inputs.isfinite().all():
            raise ValueError("batches must hold finite inputs, got infinity or not-a-number")
        yield (inputs,)
    if first is None:
        raise ValueError("batches is empty: there is nothing to calibrate on")
