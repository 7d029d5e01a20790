"""Unstructured pruning: set the smallest weights to zero, one by one.

A trained network keeps its accuracy with most of its weights at zero, more so when they go little
by little while it trains on. But a dense kernel multiplies by zero as fast as by anything else: the
model gets no faster and needs no less memory. What it is good for is a file that compresses well,
and finding out how many weights a task needs. For speed, remove whole channels (`removal`).

Masks are plain tensors next to the model. Any optimizer works with them, also one with momentum:
after each step the masked weights are set to zero again, so each forward pass sees them as zero.

    masks = magnitude_masks(model, 0.9)
    train(masked(model, masks), batches, optimizer, between=(hold(masks),))

`gradual` has `hold`, and `grow`, which takes the weights away little by little.

Source: Han et al., "Learning both Weights and Connections for Efficient Neural Networks", 2015.
"""

import zlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from labkit.compression.checks import check_own_weights, copied

Masks = dict[str, Tensor]


def magnitude_masks(model: nn.Module, sparsity: float, *, together: bool = False) -> Masks:
    """Return name of weight -> bool mask of its shape: False for the smallest weights.

    Weights of linear and convolution layers take part; biases and norms are left alone. A weight
    that is zero already is among the smallest, so pruning further keeps what is pruned. Of equal
    weights the first ones go.

    Args:
        model: left untouched.
        sparsity: share of the weights to mask, 0 to 1; rounded to whole weights.
        together: rank all layers' weights in one list, so that some layers lose more than others;
            else each layer loses the same share.

    Raises:
        ValueError: a sparsity out of range, a model without such layers, or a weight that is
            computed or not a number.
    """
    check_share("sparsity", sparsity)
    sizes = {name: weight.detach().abs() for name, weight in prunable(model).items()}
    if not together:
        return {name: _largest(size, sparsity) for name, size in sizes.items()}
    flat = torch.cat([size.flatten() for size in sizes.values()])
    parts = torch.split(_largest(flat, sparsity), [size.numel() for size in sizes.values()])
    return {n: part.view_as(sizes[n]) for n, part in zip(sizes, parts, strict=True)}


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set the masked weights of `model` itself to zero: call it after each optimizer step.

    Raises:
        ValueError: a mask that fits no parameter of the model, or is not bool; nothing is masked.
    """
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        if name not in parameters or parameters[name].shape != mask.shape:
            shape = tuple(parameters[name].shape) if name in parameters else "missing"
            raise ValueError(
                f"masks are of another model: {name} is {tuple(mask.shape)} there and {shape} here"
            )
        if mask.dtype != torch.bool:
            raise ValueError(f"masks must be bool, got {mask.dtype} for {name}")
    for name, mask in masks.items():
        # not a product: a weight that is infinite would become not-a-number
        parameters[name].masked_fill_(~mask.to(parameters[name].device), 0.0)


def masked(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of the model with its masked weights at zero; see `apply_masks`."""
    pruned = copied(model)
    apply_masks(pruned, masks)
    return pruned


def sparsity(model: nn.Module) -> float:
    """Return the share (0 to 1) of zeros among the weights that linear and convolution layers use.

    Weights count as the layers use them, also those that masks or norms of `torch.nn.utils`
    compute. One that several layers share counts once.

    Raises:
        ValueError: a model without linear or convolution layers.
    """
    weights = list({id(layer.weight): layer.weight for layer in _layers(model)}.values())
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / sum(int(weight.numel()) for weight in weights)


def compressed_bytes(model: nn.Module) -> int:
    """Return the bytes of the model's parameters and buffers after zlib's best compression.

    Dense float weights hardly compress (their digits are noise); zeros cost next to nothing.
    """
    packer = zlib.compressobj(level=9)
    total = 0
    for tensor in model.state_dict().values():
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        total += len(packer.compress(raw.numpy().data))
    return total + len(packer.flush())


def prunable(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights of the model's linear and convolution layers by name.

    Raises:
        TypeError: `model` is not a module.
        ValueError: a model without such layers, or a weight that is computed or not a number.
    """
    check_own_weights(model)
    weights = {id(layer.weight) for layer in _layers(model)}
    found: dict[str, Tensor] = {n: p for n, p in model.named_parameters() if id(p) in weights}
    for name, weight in found.items():
        if weight.isnan().any():  # it would count as the largest
            raise ValueError(f"{name} has entries that are not a number: nothing can be ranked")
    return found


def _layers(model: nn.Module) -> list[Any]:
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    layers = [module for module in model.modules() if isinstance(module, kinds)]
    if not layers:
        raise ValueError("model has no linear or convolution layer: there is nothing to prune")
    return layers


def _largest(size: Tensor, sparsity: float) -> Tensor:
    """Mask exactly round(sparsity x number) of the smallest entries."""
    order = size.flatten().argsort(stable=True)
    mask = torch.ones_like(order, dtype=torch.bool)
    mask[order[: round(sparsity * len(order))]] = False
    return mask.view_as(size)


def check_share(name: str, value: float) -> None:
    """Raise a ValueError unless the value is a number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1, got {value!r}")
