"""What torch.fx hands to a model in the place of tensors, and how it writes down the calls.

fx's own stand-ins have no size, so a model that asks `x.dim() == 4` before it goes on cannot be
traced with them, and every batch norm whose class somebody has extended asks that. These carry the
real tensor of the example along: what follows from sizes alone is known, while the graph still says
how it follows. A decision on the values of a tensor stays an error, as another input may decide
otherwise.

Values live as long as the model holds them, as in an ordinary forward pass; the graph keeps shapes.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

# What may be asked of a tensor without looking at its values, besides attributes such as `shape`.
_ASKS = {"size", "dim", "ndimension", "numel", "nelement", "is_floating_point", "is_contiguous"}
_ASKS |= {"get_device", "_assert"}


class _StandIn(fx.Proxy):
    """What fx hands to `forward`, with the value that it stands for."""

    value: Any = None

    def __getattr__(self, k: str) -> Any:
        if not hasattr(self.value, k) or callable(getattr(self.value, k)):
            return super().__getattr__(k)  # a method: what counts is its call
        return self.tracer.create_proxy("call_function", getattr, (self, k), {})

    def _number(self) -> Any:
        if not self.node.meta["number"]:
            raise fx.proxy.TraceError(f"{self.node} is asked for its value")
        return self.value

    def __len__(self) -> int:
        return len(self.value)  # of a tensor, it is its first size

    def __index__(self) -> int:
        return int(self._number())

    __int__ = __index__

    def __float__(self) -> float:
        return float(self._number())


class Tracer(fx.Tracer):
    """Writes down the operations, and runs them on the example while it does."""

    def __init__(self, inputs: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.inputs, self.running = iter(inputs), False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Leave torch's layers whole."""
        return is_torchs(m)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return the stand-in of a result."""
        return _StandIn(node, self)

    def create_args_for_root(self, *args: Any, **kwargs: Any) -> tuple[Any, list[Any]]:
        """Return what `forward` is called with."""
        function, given = super().create_args_for_root(*args, **kwargs)
        # A default such as `mask=None` must be itself: `is None` cannot be asked of a stand-in.
        return function, [
            x.value if isinstance(x, _StandIn) and not _tensors(x.value) else x for x in given
        ]

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Write down a layer, or go into a module."""
        # fx replaces these two for all modules, also for those that run on real tensors.
        return (
            forward(*args, **kwargs)
            if self.running
            else super().call_module(m, forward, args, kwargs)
        )

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Return the stand-in of a parameter."""
        return attr_val if self.running else super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any
    ) -> Any:
        """Write down an operation, and return what stands for its result."""
        proxy: Any = super().create_proxy(kind, target, args, kwargs, *rest, **more)
        self.running = True
        try:
            proxy.value = value = self._value(kind, target, *_real((args, kwargs)))
        finally:
            self.running = False
        # The value lives as long as `forward` holds it; only its shape stays behind.
        node: fx.Node = proxy.node
        asks = target is getattr or getattr(target, "__name__", target) in _ASKS
        sizes = asks or all(n.meta.get("number", False) for n in node.all_input_nodes)
        node.meta.update(like=like(value), number=sizes and not _tensors(value))
        return proxy

    def _value(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        if kind == "placeholder":
            if target.startswith("*"):
                return {} if target.startswith("**") else tuple(self.inputs)
            return next(self.inputs, *args)
        if kind == "get_attr":
            return attribute(self.root, target)
        if kind == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        function = self.root.get_submodule(target) if kind == "call_module" else target
        return function(*args, **kwargs)

    def to_bool(self, obj: Any) -> bool:
        """Return what is known of sizes, and refuse the rest."""
        return bool(obj.value) if obj.node.meta["number"] else super().to_bool(obj)

    def iter(self, obj: Any) -> Iterator[Any]:
        """Take a tensor or a size apart."""
        return (obj[i] for i in range(len(obj)))


def _real(given: Any) -> Any:
    """Return arguments with values in the places of stand-ins."""
    return fx.node.map_aggregate(given, lambda x: x.value if isinstance(x, _StandIn) else x)


def _tensors(value: Any) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in tree_leaves(value))


def like(value: object) -> Tensor | None:
    """Return a tensor of that shape and type without its memory, or None if it is none."""
    if not isinstance(value, Tensor):
        return None
    return torch.empty((), dtype=value.dtype, device=value.device).expand(value.shape)


def attribute(model: nn.Module, path: str) -> Any:
    """Return what stands under a dotted name."""
    holder, _, name = path.rpartition(".")
    return getattr(model.get_submodule(holder), name)


def torchs(module: nn.Module) -> type[nn.Module]:
    """Return the class of torch.nn (or of labkit's synchronized norm) that a module is one of."""
    ours = "labkit.distributed."  # in evaluation it is torch's layer, and its forward cannot tell
    known = ("torch.nn.", "torch.ao.nn.", ours)
    return next(c for c in type(module).__mro__ if c.__module__.startswith(known))


def is_torchs(module: nn.Module) -> bool:
    """Say whether a module computes what a layer of torch.nn does: it is that, or only its name."""
    base = torchs(module)
    mine = type(module).__mro__[: type(module).__mro__.index(base)]
    free = {"reset_parameters", "extra_repr", "__constants__"}
    special = {"__call__", "__getattr__", "__getattribute__"}
    changed = {
        name
        for cls in mine
        for name in vars(cls)
        if name in special or (hasattr(base, name) and not name.startswith("__"))
    }
    container = base in {nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict}
    return not container and not changed - free
