"""Fold batch norm into the convolution before it: one layer less, the same outputs.

In evaluation mode batch norm is a multiplication and an addition by fixed numbers for each channel,
scale (x - mean) / sqrt(variance + eps) + shift. A convolution before it is linear in its weights,
so its rows can be multiplied, and its bias moved, by the same numbers. Exact up to rounding, for
every input. In training it is not: there mean and variance are those of the batch, so fold last.
"""

from typing import Any

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from labkit.compression.prune.trace import Example, Operation, trace


def fold_batch_norm(model: nn.Module, example: Example) -> tuple[nn.Module, list[str]]:
    """Return a copy in evaluation mode with batch norms folded, and the names of those folded.

    A batch norm is folded if it alone reads a convolution or linear layer that is used once; in
    its place stands `nn.Identity`.

    Args:
        model: left untouched.
        example: an input, or a tuple of inputs.

    Raises:
        TypeError: `model` is not a module.
        ValueError: the model cannot be traced.
    """
    smaller, operations = trace(model, example)
    by_node = {operation.node: operation for operation in operations}
    folded = []
    for norm in operations:
        layer = by_node[norm.node.all_input_nodes[0]] if norm.kind == "norm" else None
        if layer is not None and _foldable(layer, norm, operations):
            _fold(smaller, str(layer.node.target), str(norm.node.target))
            folded.append(str(norm.node.target))
    return smaller, folded


def _foldable(layer: Operation, norm: Operation, operations: list[Operation]) -> bool:
    """Say whether the layer's result goes to the norm alone, and neither is used elsewhere."""
    assert norm.module is not None
    calls = [operation.module for operation in operations]
    once = calls.count(layer.module) == 1 == calls.count(norm.module)
    flat = layer.kind == "conv" or (layer.kind == "linear" and len(layer.shape or ()) == 2)
    known = getattr(norm.module, "running_mean", None) is not None
    return once and flat and known and len(layer.node.users) == 1 and not _shared(layer, operations)


def _shared(layer: Operation, operations: list[Operation]) -> bool:
    weight = getattr(layer.module, "weight", None)
    others = (op.module for op in operations if op.module is not layer.module)
    return any(parameter is weight for m in others if m is not None for parameter in m.parameters())


def _fold(model: nn.Module, layer: str, norm: str) -> None:
    before, after = model.get_submodule(layer), model.get_submodule(norm)
    fuse: Any = fuse_linear_bn_eval if isinstance(before, nn.Linear) else fuse_conv_bn_eval
    _put(model, layer, fuse(before, after))
    _put(model, norm, nn.Identity())


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    holder, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(holder), attribute, module)
