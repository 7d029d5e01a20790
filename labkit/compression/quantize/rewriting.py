"""An exported graph, put into the words that torchao understands, before it is quantized.

torchao finds layers by the Python that made them, folds batch norms into weights in place, and
takes only some spellings. Each function here changes a graph without changing what it computes:

- padding by name ("same") becomes numbers, and a pass of its own where both sides differ;
- a layer that a norm must not be folded into (its output or its weight is used elsewhere too) gets
  a twin with weights of its own, which the norm alone reads;
- convolutions and linear layers are marked by what they compute, so that subclasses of torch's
  layers, functions and padding modes count; sums that no kernel computes lose their mark.
"""

from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

aten = torch.ops.aten
LAYERS: dict[Any, type[nn.Module]] = {
    aten.conv1d.default: nn.Conv1d,
    aten.conv2d.default: nn.Conv2d,
    aten.linear.default: nn.Linear,
}
PADDED: dict[Any, Any] = {
    aten.conv1d.padding: aten.conv1d.default,
    aten.conv2d.padding: aten.conv2d.default,
}
FOLDED = (  # what torchao folds a batch norm into
    *LAYERS,
    aten.conv3d.default,
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
)
SOURCES = ("source_fn_stack", "torch_fn")  # the Python that made a node, as torch.export notes it


def rewrite(graph: fx.GraphModule) -> None:
    """Change the graph in place, so that torchao quantizes all that it can, and that rightly."""
    for node in list(graph.graph.nodes):
        if node.target in PADDED:
            _pad_by_numbers(node)
        elif node.target is aten.batch_norm.default and node.args[0].target in FOLDED:
            _part(graph, node)
    for node in graph.graph.nodes:
        if node.target in LAYERS:
            node.meta[SOURCES[0]] = [(node.name, LAYERS[node.target])]
        elif _misleads(node):
            for key in SOURCES:
                node.meta.pop(key, None)
    graph.graph.lint()
    graph.recompile()


def _misleads(node: fx.Node) -> bool:
    """Is it a part of a layer that is not its product, or a sum that no kernel computes?"""
    if node.target is aten.add.Tensor:
        plain = all(isinstance(number, fx.Node) for number in node.args)
        return not plain or bool(node.kwargs.get("alpha", 1) != 1)
    (_, kind), *_ = reversed(node.meta.get(SOURCES[0]) or [(None, None)])
    return isinstance(kind, type) and issubclass(kind, tuple(LAYERS.values()))


def _pad_by_numbers(node: fx.Node) -> None:
    """Spell "same" and "valid" out, as torch's own convolutions do."""
    arguments: tuple[Any, ...] = node.args
    x, weight, *given = arguments
    sizes = weight.meta["val"].shape[2:]
    ones = [1] * len(sizes)
    defaults: tuple[Any, ...] = (None, ones, "valid", ones, 1)
    bias, stride, how, dilation, groups = [*given, *defaults[len(given) :]]
    pairs = zip(sizes, dilation, strict=True)
    needed = [(size - 1) * step if how == "same" else 0 for size, step in pairs]
    padding = [both // 2 for both in needed]
    if any(both % 2 for both in needed):  # one more at the end: a pass of its own
        sides = [side for both in reversed(needed) for side in (both // 2, both - both // 2)]
        with node.graph.inserting_before(node):
            padded = node.graph.call_function(aten.pad.default, (x, sides))
        padded.meta["val"] = F.pad(x.meta["val"], sides)
        x, padding = padded, [0] * len(needed)
    node.target = PADDED[node.target]
    node.args = (x, weight, bias, stride, padding, dilation, groups)


def _part(graph: fx.GraphModule, norm: fx.Node) -> None:
    """Give a batch norm a layer that nothing else reads, with tensors that nothing else has."""
    layer = norm.args[0]
    assert isinstance(layer, fx.Node)
    tensors = [x for x in layer.args if isinstance(x, fx.Node) and x.op == "get_attr"]
    if len(layer.users) == 1 and all(_uses(graph, tensor) == 1 for tensor in tensors):
        return
    with graph.graph.inserting_before(layer):
        own = {tensor: _copied(graph, tensor, layer.name) for tensor in tensors}
        twin = graph.graph.node_copy(layer, lambda x: own.get(x, x))
    norm.replace_input_with(layer, twin)
    if not layer.users:
        graph.graph.erase_node(layer)


def _uses(graph: fx.GraphModule, tensor: fx.Node) -> int:
    readers = graph.graph.find_nodes(op="get_attr", target=tensor.target)
    return sum(len(reader.users) for reader in readers)


def _copied(graph: fx.GraphModule, tensor: fx.Node, call: str) -> fx.Node:
    """A node that reads a copy of `stem.weight`, which is kept as `stem.CALL.weight`."""
    owner, _, name = str(tensor.target).rpartition(".")
    holder = f"{owner}.{call}".lstrip(".")
    if not any(path == holder for path, _ in graph.named_modules()):
        graph.add_submodule(holder, nn.Module())
    value = getattr(graph.get_submodule(owner), name)
    setattr(graph.get_submodule(holder), name, nn.Parameter(value.detach().clone(), False))
    made = graph.graph.get_attr(f"{holder}.{name}")
    made.meta = dict(tensor.meta)
    return made
