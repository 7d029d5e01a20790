"""Fold batch norm into the convolution before it: one layer less, the same outputs.

In evaluation mode batch norm is a multiplication and an addition by fixed numbers for each channel,
scale (x - mean) / sqrt(variance + eps) + shift. A convolution before it is linear in its weights,
so its rows can be multiplied, and its bias moved, by the same numbers. Exact up to rounding, for
every input. In training it is not: there mean and variance are those of the batch, so fold last.
"""

from typing import Any

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from labkit.compression.checks import copied
from labkit.compression.prune.proof import agree
from labkit.compression.prune.trace import Example, Operation, trace


def fold_batch_norm(model: nn.Module, example: Example) -> tuple[nn.Module, list[str]]:
    """Return a copy in evaluation mode with batch norms folded, and the names of those folded.

    A batch norm is folded if it alone reads a convolution or linear layer that is used once; in
    its place stands `nn.Identity`. One whose model reads more of it than its result, such as
    `norm.num_features`, stays; so does a class of one's own that does more than to normalise.

    Args:
        model: left untouched.
        example: an input, or a tuple of inputs.

    Raises:
        TypeError: `model` is not a module.
        ValueError: the model cannot be traced.
    """
    inputs = example if isinstance(example, tuple) else (example,)
    whole, operations = trace(model, inputs)
    by_node = {operation.node: operation for operation in operations}
    pairs = {}
    for norm in operations:
        layer = by_node[norm.node.all_input_nodes[0]] if norm.kind == "norm" else None
        if layer is not None and _foldable(layer, norm, operations):
            pairs[str(norm.node.target)] = str(layer.node.target)
    smaller = _folded(whole, pairs)
    if not agree(whole, smaller, inputs):  # find out which of them; the others are folded
        pairs = {n: pairs[n] for n in pairs if agree(whole, _folded(whole, {n: pairs[n]}), inputs)}
        smaller = _folded(whole, pairs)
    if not agree(whole, smaller, inputs):
        raise ValueError(f"model gives something else with {', '.join(pairs)} folded")
    return smaller, list(pairs)


def _foldable(layer: Operation, norm: Operation, operations: list[Operation]) -> bool:
    """Say whether the layer's result goes to the norm alone, and neither is used elsewhere."""
    if layer.module is None or norm.module is None:  # called as functions in the model's own code
        return False
    calls = [operation.module for operation in operations]
    once = calls.count(layer.module) == 1 == calls.count(norm.module)
    # torch's own fold does not know the groups of a transposed convolution.
    whole = layer.kind == "transposed" and layer.module.groups == 1
    flat = layer.kind == "conv" or whole or (layer.kind == "linear" and len(layer.shape or ()) == 2)
    known = getattr(norm.module, "running_mean", None) is not None
    return once and flat and known and len(layer.node.users) == 1 and not _shared(layer, operations)


def _shared(layer: Operation, operations: list[Operation]) -> bool:
    weight = getattr(layer.module, "weight", None)
    others = (op.module for op in operations if op.module is not layer.module)
    return any(parameter is weight for m in others if m is not None for parameter in m.parameters())


def _folded(model: nn.Module, pairs: dict[str, str]) -> nn.Module:
    """Return a copy with these norms (norm -> the layer before it) folded."""
    model = copied(model)
    for norm, layer in pairs.items():
        before, after = model.get_submodule(layer), model.get_submodule(norm)
        fuse: Any = fuse_linear_bn_eval if isinstance(before, nn.Linear) else fuse_conv_bn_eval
        transposed = {"transpose": True} if getattr(before, "transposed", False) else {}
        _put(model, layer, fuse(before, after, **transposed))
        _put(model, norm, nn.Identity())
    return model


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    holder, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(holder), attribute, module)
