"""The operations of a model in order, with their kinds and shapes: what pruning reasons about.

torch.fx runs the model once with stand-ins for tensors and writes down what was called. Layers of
torch.nn stay whole, so a convolution is one line, and so is `F.conv2d` with a layer's own weight.
Names differ for the same thing (`nn.ReLU`, `F.relu`, `x.relu_()`), so each line gets a *kind*.
Whatever has no kind is "opaque": those who use the list must then find out, or assume that it reads
everything and may return anything.

The stand-ins carry real tensors along, so that a `forward` may ask for shapes and branch on them. A
model that takes decisions on the values of tensors cannot be traced.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

from labkit.compression.checks import check_own_weights, copied
from labkit.compression.prune.stand_ins import Tracer, attribute, is_torchs, like, torchs

Example: TypeAlias = Tensor | tuple[Tensor, ...]

_NAMES = {
    "conv": "Conv1d Conv2d Conv3d conv1d conv2d conv3d",
    "transposed": "ConvTranspose1d ConvTranspose2d ConvTranspose3d conv_transpose1d"
    " conv_transpose2d conv_transpose3d",
    "linear": "Linear linear",
    "norm": "BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm batch_norm",
    # each channel by itself, with numbers of its own
    "by_channel": "PReLU prelu InstanceNorm1d InstanceNorm2d InstanceNorm3d instance_norm",
    "group_norm": "GroupNorm group_norm",
    # from each number one number, the same everywhere
    "activation": "ReLU relu ReLU6 relu6 LeakyReLU leaky_relu ELU elu GELU gelu SiLU silu Hardswish"
    " hardswish Sigmoid sigmoid Hardsigmoid hardsigmoid Tanh tanh Hardtanh hardtanh Softplus"
    " softplus Mish mish SELU selu CELU celu Threshold threshold clamp",
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
    "join": "cat concat concatenate",
}
_KINDS = {name: kind for kind, names in _NAMES.items() for name in names.split()}
_WEIGHTED = {"conv", "transposed", "linear", "norm", "by_channel", "group_norm"}


@dataclass(frozen=True)
class Operation:
    """One line of the traced model.

    shape: of the result; None when that is not a tensor. Numbers that follow from shapes alone are
        of the kind "number".
    tensors: "weight", "bias", … -> the parameter or buffer of the model that is used as such.
    """

    node: fx.Node
    kind: str
    name: str
    module: nn.Module | None
    shape: tuple[int, ...] | None
    tensors: dict[str, str]

    def argument(self, position: int, name: str, default: Any) -> Any:
        """Return an argument of a function or method, or the attribute of a module."""
        if self.module is not None:
            return getattr(self.module, name, default)
        args = self.node.args
        return args[position] if len(args) > position else self.node.kwargs.get(name, default)


def trace(
    model: nn.Module, example: Example, *, training: bool = False
) -> tuple[nn.Module, list[Operation]]:
    """Return a copy of the model, and the operations of its forward pass on that copy.

    Args:
        model: left untouched.
        example: an input, or a tuple of the inputs; only its shape matters.
        training: what it does in training mode. Its norms stay in evaluation, as they do not take
            batches of one image otherwise, and so do the copy's statistics.

    Raises:
        TypeError: `model` is not a module.
        ValueError: the model cannot be traced, does not take the example, or has weights that are
            computed.
    """
    check_own_weights(model)
    model = copied(model).eval()
    inputs = example if isinstance(example, tuple) else (example,)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            model(*tree_map(torch.clone, inputs))  # a model may write over its input
        except Exception as error:
            raise ValueError(f"example must be an input that the model takes: {error}") from error
        for module in model.modules():
            module.training = training and not isinstance(module, nn.modules.batchnorm._NormBase)
        try:
            graph = Tracer(tree_map(torch.clone, inputs)).trace(model)
        except Exception as error:  # whatever the model's own code raised when it met a stand-in
            mode = " in training mode, with no more than the example" if training else ""
            raise ValueError(
                f"model cannot be traced by torch.fx{mode}: its forward must not branch on values "
                f"of tensors ({type(error).__name__}: {error})"
            ) from error
    modules = dict(model.named_modules(remove_duplicate=False))
    names: dict[int, str] = {}  # one name for each tensor, also when two modules share it
    for name, tensor in [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]:
        names.setdefault(id(tensor), name)
    return model.eval(), [_operation(node, model, modules, names) for node in graph.nodes]


def check_overwriting(operations: list[Operation]) -> None:
    """Refuse a model that overwrites a tensor which another operation reads as well.

    Whoever reasons about the values of such a tensor would have to know which one reads it first.

    Raises:
        ValueError: names the operation and the tensor.
    """
    made_by = {operation.node: operation for operation in operations}
    for operation in filter(_in_place, operations):
        # These may return the memory they were given.
        shared = {"same", "flatten", "reshape", "opaque"}
        node = operation.node.all_input_nodes[0]
        # The memory may have several names (a view, a result in place): follow it to its maker.
        while True:
            # Who asks for its shape alone does not care what is written into it.
            if sum(made_by[user].kind != "number" for user in node.users) > 1:
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


def _operation(
    node: fx.Node, model: nn.Module, modules: dict[str, nn.Module], names: dict[int, str]
) -> Operation:
    module = modules[str(node.target)] if node.op == "call_module" else None
    name, kind = _name(node, module), "opaque"
    tensors: dict[str, str] | None = {}
    if node.op == "get_attr":
        tensor = attribute(model, str(node.target))
        node.meta["like"] = like(tensor)
        tensors = {"weight": names[id(tensor)]} if id(tensor) in names else {}
    if module is not None:
        held = [*module.named_parameters(), *module.named_buffers()]
        tensors = {n: names[id(tensor)] for n, tensor in held}
    result = node.meta.get("like")
    if node.op in {"placeholder", "get_attr", "output"}:
        kind = node.op
    elif node.meta.get("number", False):  # fx writes some lines down by itself
        kind = "number"
    elif result is not None and (module is None or _is_plain(module)):
        # A class of one's own may do anything, and attention returns a pair: both stay opaque.
        kind = _KINDS.get(name if module is not None else name.rstrip("_"), kind)
        if module is None and kind in _WEIGHTED:
            tensors = _weights(node, model, names)
    if tensors is None:  # such as a weight that was computed
        kind, tensors = "opaque", {}
    shape = None if result is None else tuple(result.shape)
    return Operation(node, kind, name, module, shape, tensors)


def _weights(node: fx.Node, model: nn.Module, names: dict[int, str]) -> dict[str, str] | None:
    """Return the tensors of the model that a function takes as weights; None if one is not."""
    found: dict[str, str] = {}
    order: tuple[str, ...] = ("weight", "bias")
    if _name(node, None) in {"batch_norm", "instance_norm"}:
        order = ("running_mean", "running_var", *order)
    first = 2 if _name(node, None) == "group_norm" else 1
    given = {**dict(zip(order, node.args[first:], strict=False)), **node.kwargs}
    for name in order:
        value = given.get(name)
        if isinstance(value, fx.Node):
            tensor = attribute(model, str(value.target)) if value.op == "get_attr" else None
            if id(tensor) not in names:
                return None
            found[name] = names[id(tensor)]
    return found


def _name(node: fx.Node, module: nn.Module | None) -> str:
    if module is not None:
        return torchs(module).__name__
    return str(getattr(node.target, "__name__", node.target))


def _is_plain(module: nn.Module) -> bool:
    """Say whether a module is torch's and has nothing hooked in that changes its work."""
    return is_torchs(module) and not (module._forward_hooks or module._forward_pre_hooks)
