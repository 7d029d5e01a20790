"""Dynamic int8: weights in 8 bits beforehand, activations at each call by their own range.

Before each linear layer the smallest and largest input are looked up and all are rounded to 256
steps between; the product runs in integers. There is nothing to calibrate, so an input unlike all
others is no danger. The price: looking for the extremes reads the activations once more, and the
result is float, so the next layer rounds again. It pays for wide linear layers (transformers); for
convolutions torchao has no such kernel, and they stay in float.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.compression.quantize.exported import convert
from labkit.compression.quantize.int8_model import Int8Model
from labkit.compression.quantize.static_int8 import weight_spec
from labkit.compression.quantize.torchao_import import pt2e


def dynamic(model: nn.Module, example: Tensor | tuple[Tensor, ...]) -> Int8Model:
    """Return the model with its linear layers in int8, for inputs like `example`.

    Args:
        model: float32, on the CPU, in any mode; left untouched.
        example: an input, or a tuple of the inputs, each with the batch as its first dimension.
            The result takes inputs of this shape (but for the batch) and dtype.

    Raises:
        TypeError: `model` is not a module.
        ValueError: no linear layers; an example that is not made of tensors; a model that is not
            float32 on the CPU, or cannot be traced.
    """
    inputs = example if isinstance(example, tuple) else (example,)
    if not inputs or not all(torch.is_tensor(x) and x.ndim > 0 for x in inputs):
        raise ValueError("example must be a tensor or a tuple of tensors, each with a batch")
    return Int8Model(*convert(model, [inputs], dynamic_quantizer(), "dynamic", ()))


def dynamic_quantizer() -> object:
    """Return torchao's quantizer for x86, which finds the activations' ranges at each call."""
    torchao = pt2e()
    activations = torchao.QuantizationSpec(
        dtype=torch.uint8,
        quant_min=0,
        quant_max=255,
        qscheme=torch.per_tensor_affine,
        is_dynamic=True,
        observer_or_fake_quant_ctr=torchao.PlaceholderObserver.with_args(),
    )
    config = torchao.QuantizationConfig(activations, activations, weight_spec(), None, False)
    return torchao.Quantizer().set_function_type_qconfig(F.linear, config)
