"""How large are the gradients, and which of them would a 16-bit format lose?

A loss of about 1 gives gradients that are a million times smaller: the mean over a batch divides
by its size, and every layer spreads what is left over its inputs. fp16 turns what lies below 3e-8
into zero. The gradients are computed here in fp32, so that they show what would be lost.

Two kinds count. Gradients of activations travel from layer to layer: one that becomes zero takes
all that lies behind it along. Gradients of weights are sums over the batch, and larger.

Source: Micikevicius et al., "Mixed Precision Training", 2018, section 3.2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from labkit.measure.formats import FORMATS
from labkit.measure.untouched import untouched


@dataclass(frozen=True)
class Fates:
    """Shares (0 to 1, together 1) of what becomes of numbers that are stored in a format."""

    zero: float
    subnormal: float
    normal: float
    infinite: float


def fates(magnitudes: Tensor, scale: float = 1.0, name: str = "fp16") -> Fates:
    """Return what becomes of `magnitudes` when they are multiplied by `scale` and then stored.

    Args:
        magnitudes: positive float32 numbers of any shape, at least one.
        scale: such as a loss scale.
        name: of the format: "fp32", "bf16" or "fp16".

    Raises:
        ValueError: no numbers or negative ones, a scale that is not positive, or an unknown format.
    """
    if name not in FORMATS:
        raise ValueError(f"name must be one of {', '.join(FORMATS)}, got {name!r}")
    if not 0 < scale < float("inf"):
        raise ValueError(f"scale must be a positive number, got {scale!r}")
    if not magnitudes.numel() or not (magnitudes >= 0).all():
        raise ValueError("magnitudes must be positive numbers, at least one")
    form = FORMATS[name]
    stored = (magnitudes * scale).to(form.dtype)
    zero, infinite = (_share(stored == 0), _share(torch.isinf(stored)))
    below = _share(stored < form.smallest_normal)
    return Fates(zero, below - zero, 1 - below - infinite, infinite)


def gradient_magnitudes(
    model: nn.Module, loss_function: Callable[..., Tensor], *batch: Tensor
) -> dict[str, Tensor]:
    """Return the sizes of all gradients of one batch, those that are exactly zero left out.

    The model is left as it was: parameters, their gradients, buffers and the random generators.

    Args:
        model: called as `model(*batch[:-1])`, in the mode it is in.
        loss_function: called as `loss_function(output, batch[-1])`; returns a scalar.
        batch: the model's inputs, then the target.

    Returns:
        {"activations": of the outputs of all layers, "weights": of all parameters}, each float32
        of shape (n,), on the CPU.

    Raises:
        ValueError: the model has no parameter to train, or does not take the batch.
    """
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not weights:
        raise ValueError("model has no parameter that requires a gradient")
    activations: list[Tensor] = []

    def keep(gradient: Tensor) -> None:
        activations.append(_sizes(gradient))

    def watch(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(keep)  # type: ignore[no-untyped-call]

    layers = [module for module in model.modules() if not any(module.children())]
    hooks = [layer.register_forward_hook(watch) for layer in layers]
    try:
        with untouched(model, *batch), torch.enable_grad():
            loss = loss_function(model(*batch[:-1]), batch[-1])
            of_weights = torch.autograd.grad(loss, weights, allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()
    sizes = [_sizes(gradient) for gradient in of_weights if gradient is not None]
    return {"activations": torch.cat([torch.empty(0), *activations]), "weights": torch.cat(sizes)}


def _sizes(gradient: Tensor) -> Tensor:
    # Layer by layer, and the zeros left out at once: all gradients together would be large.
    sizes = gradient.detach().flatten().float().abs().cpu()
    return sizes[sizes > 0]


def _share(mask: Tensor) -> float:
    return int(mask.count_nonzero()) / mask.numel()
