"""Count the floating-point operations of any call: a forward pass, or a whole training step.

Counted are products of matrices, convolutions and attention, a multiplication and an addition as
two. The rest (activations, norms, losses) is left out, as is usual: it is a small part of the
operations, though not always of the time.

The rule of thumb for a training step: the backward pass costs twice the forward pass, because each
layer needs a gradient for its weights and one for its input, and each costs what the forward pass
did. Only the first layer needs no gradient for its input.

torch's own counter does the work. Two of its entries are replaced here: it multiplies the weight
gradient of a grouped convolution by the number of groups, and it does not know the attention
kernel of a CPU. Fused kernels that it cannot see into are refused, not counted as nothing.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import nn

from labkit.measure.untouched import untouched

Shape = Sequence[int]


def flops(function: Callable[[], object]) -> int:
    """Return the floating-point operations of one call of `function`, backward included.

    Args:
        function: called once, without arguments. What it changes stays changed.

    Raises:
        ValueError: the call runs a fused kernel whose operations cannot be counted.
    """
    from torch.utils.flop_counter import FlopCounterMode  # brings Triton along: 0.1 s

    with FlopCounterMode(display=False, custom_mapping=_formulas()) as counter:
        function()
    return int(counter.get_total_flops())


def step_flops(
    model: nn.Module,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = F.cross_entropy,
) -> int:
    """Return the floating-point operations of a training step.

    Forward and backward pass; the optimizer's own are not counted. The model, its gradients and
    the random generators are left as they were.

    Args:
        model: called as `model(inputs)`.
        inputs: what the model takes, batch first.
        targets: what the loss takes.
        loss: called as `loss(model(inputs), targets)`; returns a scalar, as for `train`.

    Raises:
        TypeError: `model` is not a module.
        ValueError: the model has no parameter to train, or does not take the batch.
    """
    with untouched(model, inputs, targets), torch.enable_grad():
        parameters = [p for p in model.parameters() if p.requires_grad]
        if not parameters:
            raise ValueError("model has no parameter that requires a gradient: nothing to train")

        def step() -> None:
            value = loss(model(inputs), targets)
            # Not value.backward(): that would add to the gradients that the parameters hold.
            torch.autograd.grad(value, parameters, allow_unused=True)

        return flops(step)


def _formulas() -> dict[Any, Callable[..., int]]:
    """Formulas that replace or complete those of torch's counter. They are called with shapes."""
    aten = torch.ops.aten
    formulas: dict[Any, Callable[..., int]] = {
        aten.convolution_backward: _convolution_backward,
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    for name, advice in _FUSED.items():
        formulas[getattr(aten, name)] = _refusal(name, advice)
    return formulas


_RNN = "write the recurrent layer with cells, such as torch.nn.LSTMCell"
_TRANSFORMER = "count in training mode, or with gradients on: that takes the unfused path"
_FUSED = {
    "mkldnn_rnn_layer": _RNN,
    "_cudnn_rnn": _RNN,
    "_transformer_encoder_layer_fwd": _TRANSFORMER,
    "_native_multi_head_attention": _TRANSFORMER,
}


def _refusal(name: str, advice: str) -> Callable[..., int]:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise ValueError(
            f"function runs the fused kernel {name}, which cannot be counted: {advice}"
        )

    return refuse


def _convolution_backward(
    grad_output: Shape,
    images: Shape,
    weight: Shape,
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    output_mask: Sequence[bool],
    **_: Any,
) -> int:
    """Each gradient, of input and of weight, pairs the same numbers as the forward pass did."""
    positions = prod((images if transposed else grad_output)[2:])
    # A grouped weight is (out, in / groups, ...): the groups are in its size already.
    forward = 2 * images[0] * positions * prod(weight)
    return forward * (bool(output_mask[0]) + bool(output_mask[1]))


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Scores = query key^T, output = scores value; shapes are (B, heads, length, size)."""
    pairs = prod(query[:3]) * key[2]
    return 2 * pairs * (query[3] + value[3])


def _attention_backward(
    _grad: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any
) -> int:
    """The kernel computes the scores again, then four gradients: of scores, query, key, value."""
    pairs = prod(query[:3]) * key[2]
    return 2 * pairs * (3 * query[3] + 2 * value[3])
