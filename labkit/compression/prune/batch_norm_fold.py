"""Fold batch norm into the convolution before it: one layer less, the same outputs.

In evaluation mode batch norm is a multiplication and an addition by fixed numbers for each channel,
scale (x - mean) / sqrt(variance + eps) + shift. A convolution before it is linear in its weights,
so its rows can be multiplied, and its bias moved, by the same numbers. Exact up to rounding, for
every input. In training it is not: there mean and variance are those of the batch, so fold last.
"""

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from labkit.compression.checks import copied
from labkit.compression.prune.proof import agree
from labkit.compression.prune.stand_ins import Tracer, is_torchs
from labkit.compression.prune.trace import Example, Operation, trace

Pairs = dict[str, tuple[str, Tensor]]
"""Norm -> the layer before it, and a tensor like those between them."""


def fold_batch_norm(model: nn.Module, example: Example) -> tuple[nn.Module, list[str]]:
    """Return a copy in evaluation mode with batch norms folded, and the names of those folded.

    A batch norm is folded if it alone reads a convolution or linear layer that is used once. In its
    place stands `nn.Identity`, or what else its class does, such as an activation. One whose model
    reads more of it than its result, such as `norm.num_features`, stays.

    Args:
        model: left untouched.
        example: an input, or a tuple of inputs; only its shape matters.

    Raises:
        TypeError: `model` is not a module.
        ValueError: the model cannot be traced.
    """
    inputs = example if isinstance(example, tuple) else (example,)
    whole, operations = trace(model, inputs)
    pairs = _pairs(whole, operations)
    smaller = _folded(whole, pairs)
    if not agree(whole, smaller, inputs):  # find out which of them; the others are folded
        pairs = {n: pairs[n] for n in pairs if agree(whole, _folded(whole, {n: pairs[n]}), inputs)}
        smaller = _folded(whole, pairs)
    if not agree(whole, smaller, inputs):
        raise ValueError(f"model gives something else with {', '.join(pairs)} folded")
    return smaller, list(pairs)


@torch.no_grad()
def _pairs(model: nn.Module, operations: list[Operation]) -> Pairs:
    by_node, pairs = {operation.node: operation for operation in operations}, Pairs()
    for norm in operations:
        layer = by_node[norm.node.all_input_nodes[0]] if norm.kind == "norm" else None
        if layer is None or "running_mean" not in norm.tensors:
            continue
        # torch's own fold does not know the groups of a transposed convolution.
        whole = layer.kind == "transposed" and layer.argument(6, "groups", 1) == 1
        flat = layer.kind == "linear" and len(layer.shape or ()) == 2
        if layer.kind == "conv" or whole or flat:
            names = [layer.tensors["weight"], norm.tensors["running_mean"]]
            readers = [user for user in layer.node.users if by_node[user].kind != "number"]
            if len(readers) == 1 and all(len(_uses(operations, name)) == 1 for name in names):
                before, after = (name.rpartition(".")[0] for name in names)
                pairs[after] = before, layer.node.meta["like"]
    kinds = nn.Linear | nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm
    return {
        norm: (layer, like)
        for norm, (layer, like) in pairs.items()
        if isinstance(model.get_submodule(layer), kinds[0])
        and isinstance(model.get_submodule(norm), kinds[1])
    }


def _uses(operations: list[Operation], tensor: str) -> set[fx.Node]:
    """Return the operations that take a tensor of the model, as their own or as an argument."""
    found = [op for op in operations if tensor in op.tensors.values()]
    return {n for op in found for n in (op.node.users if op.kind == "get_attr" else [op.node])}


def _folded(model: nn.Module, pairs: Pairs) -> nn.Module:
    """Return a copy with these norms folded."""
    model = copied(model)
    for norm, (layer, like) in pairs.items():
        before, after = model.get_submodule(layer), model.get_submodule(norm)
        fuse: Any = fuse_linear_bn_eval if isinstance(before, nn.Linear) else fuse_conv_bn_eval
        transposed = {"transpose": True} if getattr(before, "transposed", False) else {}
        _put(model, layer, fuse(before, after, **transposed))
        _put(model, norm, nn.Identity() if is_torchs(after) else _without_norm(after, like))
    return model


@torch.no_grad()
def _without_norm(norm: nn.Module, like: Tensor) -> nn.Module:
    """Return what a class of somebody's own does besides: the trace of its forward without it."""
    graph = Tracer((torch.zeros_like(like),)).trace(norm)
    for node in reversed(graph.nodes):  # so that the weights of the norm come after it
        is_norm = getattr(node.target, "__name__", "") == "batch_norm"
        if is_norm:
            node.replace_all_uses_with(node.args[0])
        if is_norm or (node.op == "get_attr" and not node.users):
            graph.erase_node(node)
    return fx.GraphModule(norm, graph, type(norm).__name__)


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    holder, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(holder), attribute, module)
