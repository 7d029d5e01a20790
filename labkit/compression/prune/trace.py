"""The operations of a model in order, with their kinds and shapes: what pruning reasons about.

torch.fx runs the model once with stand-ins for tensors and writes down what was called. Modules of
torch.nn stay whole, so a convolution is one line. Names differ for the same thing (`nn.ReLU`,
`F.relu`, `x.relu_()`), and what matters is the same for many (a pooling layer and an upsampling
layer both leave the channels alone), so each line gets a *kind*. Whatever has no kind is "opaque":
those who use the list must then assume that it reads everything and may return anything.

A model whose `forward` takes decisions on values of tensors cannot be traced.
"""

import copy
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn

from labkit.compression.checks import check_model

Example: TypeAlias = Tensor | tuple[Tensor, ...]

_NAMES = {
    "conv": "Conv1d Conv2d Conv3d",
    "linear": "Linear",
    "norm": "BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm",
    # from each number one number, the same everywhere
    "activation": "ReLU relu ReLU6 relu6 LeakyReLU leaky_relu ELU elu GELU gelu SiLU silu Hardswish"
    " hardswish Sigmoid sigmoid Hardsigmoid hardsigmoid Tanh tanh Hardtanh hardtanh Softplus"
    " softplus Mish mish",
    "same": "Identity Dropout Dropout1d Dropout2d Dropout3d dropout stochastic_depth contiguous"
    " clone detach",
    "max_pool": "MaxPool1d MaxPool2d MaxPool3d AdaptiveMaxPool2d max_pool1d max_pool2d max_pool3d"
    " adaptive_max_pool2d",
    "mean_pool": "AvgPool1d AvgPool2d AvgPool3d AdaptiveAvgPool1d AdaptiveAvgPool2d"
    " AdaptiveAvgPool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d"
    " adaptive_avg_pool3d",
    "upsample": "Upsample UpsamplingNearest2d UpsamplingBilinear2d interpolate",
    "mean": "mean",
    "flatten": "Flatten flatten",
    "reshape": "view reshape",
    "add": "add iadd",
    "subtract": "sub isub",
    "multiply": "mul imul",
    "divide": "truediv itruediv div",
    "join": "cat concat",
    "shape": "size",
    "nothing": "dim _assert",
}
_KINDS = {name: kind for kind, names in _NAMES.items() for name in names.split()}


@dataclass(frozen=True)
class Operation:
    """One line of the traced model; `shape` is None when the result is not a tensor."""

    node: fx.Node
    kind: str
    name: str
    module: nn.Module | None
    shape: tuple[int, ...] | None

    def argument(self, position: int, name: str, default: Any) -> Any:
        """Return an argument of a function or method, or the attribute of a module."""
        if self.module is not None:
            return getattr(self.module, name, default)
        args = self.node.args
        return args[position] if len(args) > position else self.node.kwargs.get(name, default)


def trace(model: nn.Module, example: Example) -> tuple[nn.Module, list[Operation]]:
    """Return a copy of the model in evaluation mode, and the operations of its forward pass.

    Args:
        model: left untouched.
        example: an input, or a tuple of the inputs; only its shape matters.

    Raises:
        TypeError: `model` is not a module.
        ValueError: the model cannot be traced, or does not take the example.
    """
    check_model(model)
    model = copy.deepcopy(model).eval()
    try:
        graph = fx.GraphModule(model, fx.Tracer().trace(model))
    except Exception as error:  # whatever the model's own code raised when it met a stand-in
        raise ValueError(
            "model cannot be traced by torch.fx: its forward must not branch on values of tensors "
            f"({type(error).__name__}: {error})"
        ) from error
    inputs = example if isinstance(example, tuple) else (example,)
    try:
        with torch.no_grad():
            _Shapes(graph).run(*inputs)
    except Exception as error:
        raise ValueError(f"example must be an input that the model takes: {error}") from error
    modules = dict(model.named_modules(remove_duplicate=False))
    return model, [_operation(node, modules) for node in graph.graph.nodes]


def check_overwriting(operations: list[Operation]) -> None:
    """Refuse a model that overwrites a tensor which another operation reads as well.

    Whoever reasons about the values of such a tensor would have to know which one reads it first.

    Raises:
        ValueError: names the operation and the tensor.
    """
    made_by = {operation.node: operation for operation in operations}
    for operation in filter(_in_place, operations):
        shared = {"same", "flatten", "reshape", "opaque"}  # may return the memory they were given
        node = operation.node.all_input_nodes[0]
        # The memory may have several names (a view, a result in place): follow it to its maker.
        while True:
            if len(node.users) > 1:
                raise ValueError(
                    f"model overwrites a tensor that is read elsewhere too: {operation.node} "
                    f"overwrites {node}"
                )
            made = made_by[node]
            if not node.all_input_nodes or not (made.kind in shared or _in_place(made)):
                break
            node = node.all_input_nodes[0]


def _in_place(operation: Operation) -> bool:
    method = operation.node.op == "call_method" and operation.name.endswith("_")
    module = getattr(operation.module, "inplace", False)
    written = operation.name in {"iadd", "isub", "imul", "itruediv"}
    return bool(method or module or written or operation.node.kwargs.get("inplace", False))


class _Shapes(fx.Interpreter):
    """Run the traced model and note the shape of each result."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        n.meta["shape"] = tuple(result.shape) if isinstance(result, Tensor) else None
        return result


def _operation(node: fx.Node, modules: dict[str, nn.Module]) -> Operation:
    module = modules[str(node.target)] if node.op == "call_module" else None
    name = _name(node, module)
    kind = node.op if node.op in {"placeholder", "get_attr", "output"} else "opaque"
    if node.op in {"call_function", "call_method"}:
        kind = _KINDS.get(name.rstrip("_") if name != "_assert" else name, "opaque")
        # `x.shape` may be read freely; `x.T` or `x.data` are tensors, of which nothing is known.
        if name == "getattr":
            kind = {"shape": "shape", "ndim": "nothing"}.get(str(node.args[1]), "opaque")
        # `size[0]` asks for a number; `x[:, 3]` takes a tensor apart.
        if name == "getitem" and isinstance(node.args[0], fx.Node):
            kind = "nothing" if node.args[0].meta["shape"] is None else "opaque"
    elif module is not None and _is_plain(module):  # a class of one's own may do anything
        kind = _KINDS.get(name, "opaque")
    # An addition of two sizes is no addition of tensors, and attention returns a pair.
    if node.meta["shape"] is None and kind not in {"output", "shape", "nothing"}:
        kind = "opaque"
    return Operation(node, kind, name, module, node.meta["shape"])


def _name(node: fx.Node, module: nn.Module | None) -> str:
    if module is not None:
        return type(module).__name__
    return str(getattr(node.target, "__name__", node.target))


def _is_plain(module: nn.Module) -> bool:
    """Say whether a module is torch's own and has nothing hooked in that changes its work."""
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    # A subclass has another module's name, so an overridden forward is not taken for torch's.
    known = type(module).__module__.startswith("torch.nn.modules.")
    return known and not any(hooks)
