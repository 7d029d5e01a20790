"""Bounds that hold for every input: interval arithmetic through a traced model.

Each tensor gets, for each of its channels, a lowest and a highest value over all inputs of a given
range and all positions. A linear layer takes the worst case of each weight: where the weight is
positive, the highest input makes the highest output; where it is negative, the lowest does. An
increasing activation is applied to both ends. An operation without a rule may return anything.

The bounds are safe but loose: each layer forgets that its inputs depend on each other, so behind a
few layers they say little. Bounds for stronger proofs: Zhang et al., CROWN, 2018.

They are computed in float64, and hold for the real numbers; a float32 model can miss them by its
rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, prod
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx

from labkit.compression.prune.trace import Operation, check_overwriting

_FAR = 1e30  # stands for infinity inside an activation, whose own formula might give 0 x infinity
# Where activations that first fall and then rise have their lowest value; the others only rise.
_LOWEST = {
    "hardswish": -1.5,
    "silu": -1.278464542761074,
    "gelu": -0.7517915246935645,
    "mish": -1.1924312145154954,
}


@dataclass(frozen=True)
class Bounds:
    """Lowest and highest value, float64: of each channel along `dim`, or one for all (dim None)."""

    dim: int | None
    low: Tensor
    high: Tensor

    def hull(self) -> "Bounds":
        """Return one pair of bounds that holds for all channels."""
        return Bounds(None, self.low.min(), self.high.max())

    def along(self, dim: int, size: int) -> "Bounds":
        """Return bounds for each of the `size` channels along a dimension."""
        same = self if self.dim == dim else self.hull()
        return Bounds(dim, same.low.expand(size), same.high.expand(size))

    def with_zero(self) -> "Bounds":
        """Return bounds that also hold for zeros, such as a layer's padding."""
        return Bounds(self.dim, self.low.clamp(max=0.0), self.high.clamp(min=0.0))


def bounds(operations: list[Operation], low: float, high: float) -> dict[fx.Node, Bounds]:
    """Return node of the trace -> bounds of its result, for all inputs from low to high.

    Args:
        operations: from `trace`, of a model in evaluation mode.
        low: smallest number in any input; -inf says that nothing is known.
        high: largest number in any input.

    Raises:
        ValueError: the range is empty, or the model writes over a tensor that is read again.
    """
    if not low <= high:
        raise ValueError(f"low must be at most high, got {low!r} and {high!r}")
    check_overwriting(operations)
    known: Known = {}
    for op in operations:
        known[op.node] = _RULES.get(op.kind, _anything)(op, known)
        if op.kind == "placeholder":
            known[op.node] = _number(low, high)
    return known


def pads_with_zeros(op: Operation) -> bool:
    """Say whether a convolution or pooling layer sees zeros around its input."""
    padding = op.argument(3, "padding", 0)
    sizes = padding if isinstance(padding, tuple | list) else (padding,)
    zeros = getattr(op.module, "padding_mode", "zeros") == "zeros"
    return zeros and any(size not in (0, "valid") for size in sizes)


def channel_dim(op: Operation) -> int:
    """Return along which dimension of its input a convolution or linear layer reads channels."""
    rank = len(op.shape or ())
    return rank - 1 if op.kind == "linear" else rank - op.module.weight.ndim + 1  # type: ignore


Known: TypeAlias = dict[fx.Node, Bounds]


def _number(low: float, high: float) -> Bounds:
    return Bounds(None, *(torch.tensor(end, dtype=torch.float64) for end in (low, high)))


def _source(op: Operation) -> fx.Node:
    return op.node.all_input_nodes[0]


# ---- rules: one for each kind of operation that is known


def _conv(op: Operation, known: Known) -> Bounds:
    layer: Any = op.module
    dim = channel_dim(op)
    given = known[_source(op)].along(dim, layer.in_channels)
    given = given.with_zero() if pads_with_zeros(op) else given
    weights = layer.weight.chunk(layer.groups)
    inputs = zip(given.low.chunk(layer.groups), given.high.chunk(layer.groups), strict=True)
    parts = [_product(w, low, high) for w, (low, high) in zip(weights, inputs, strict=True)]
    low, high = (torch.cat(ends) for ends in zip(*parts, strict=True))
    return _shifted(Bounds(dim, low, high), layer.bias)


def _linear(op: Operation, known: Known) -> Bounds:
    layer: Any = op.module
    dim = channel_dim(op)
    given = known[_source(op)].along(dim, layer.in_features)
    return _shifted(Bounds(dim, *_product(layer.weight, given.low, given.high)), layer.bias)


def _norm(op: Operation, known: Known) -> Bounds:
    layer: Any = op.module
    if layer.running_mean is None:
        return _number(-inf, inf)
    scale = (layer.running_var.double() + layer.eps).rsqrt()
    scale = (scale if layer.weight is None else scale * layer.weight.detach()).cpu()
    given = known[_source(op)].along(1, len(scale))
    centred = _shifted(given, -layer.running_mean)
    ends = _times(scale, centred.low), _times(scale, centred.high)
    return _shifted(Bounds(1, torch.minimum(*ends), torch.maximum(*ends)), layer.bias)


def _activation(op: Operation, known: Known) -> Bounds:
    given = known[_source(op)]
    low, high = given.low.clamp(-_FAR, _FAR), given.high.clamp(-_FAR, _FAR)
    lowest = torch.tensor(_LOWEST.get(op.name.lower().rstrip("_"), 0.0), dtype=torch.float64)
    ends = [_apply(op, x) for x in (low, high, lowest.clamp(low, high))]
    far = [torch.where(y.abs() > _FAR / 1e9, y.sign() * inf, y) for y in ends]
    return Bounds(given.dim, torch.stack(far).amin(0), torch.maximum(far[0], far[1]))


def _same(op: Operation, known: Known) -> Bounds:
    training = {"dropout": 2, "stochastic_depth": 3}.get(op.name)
    random = training is not None and op.argument(training, "training", True)
    return _number(-inf, inf) if random else known[_source(op)]


def _max_pool(op: Operation, known: Known) -> Bounds:
    return known[_source(op)]


def _mean_pool(op: Operation, known: Known) -> Bounds:
    if op.argument(6, "divisor_override", None) is not None:
        return _number(-inf, inf)
    given = known[_source(op)]
    return given.with_zero() if pads_with_zeros(op) else given


def _mean(op: Operation, known: Known) -> Bounds:
    given, rank = known[_source(op)], len(_source(op).meta["shape"])
    dims = op.argument(1, "dim", None)
    dims = {d % rank for d in ([dims] if isinstance(dims, int) else dims or range(rank))}
    if given.dim is None or given.dim in dims:
        return given.hull()
    gone = 0 if op.argument(2, "keepdim", False) else sum(d < given.dim for d in dims)
    return Bounds(given.dim - gone, given.low, given.high)


def _flatten(op: Operation, known: Known) -> Bounds:
    """Repeat each channel's bounds if its positions are strung out, as `x.flatten(1)` does."""
    given, before, after = known[_source(op)], _source(op).meta["shape"], op.shape or ()
    dim = given.dim
    if dim is None or after != (*before[:dim], prod(before[dim:])):
        return given.hull()
    times = prod(before[dim + 1 :])
    return Bounds(dim, given.low.repeat_interleave(times), given.high.repeat_interleave(times))


def _add(op: Operation, known: Known) -> Bounds:
    dim, a, b = _pair(op, known)
    return Bounds(dim, a.low + b.low, a.high + b.high)


def _subtract(op: Operation, known: Known) -> Bounds:
    dim, a, b = _pair(op, known)
    return Bounds(dim, a.low - b.high, a.high - b.low)


def _multiply(op: Operation, known: Known) -> Bounds:
    dim, a, b = _pair(op, known)
    corners = [_times(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    return Bounds(dim, torch.stack(corners).amin(0), torch.stack(corners).amax(0))


def _join(op: Operation, known: Known) -> Bounds:
    dim, nodes = op.argument(1, "dim", 0) % len(op.shape or (0,)), op.node.args[0]
    assert isinstance(nodes, tuple | list)
    parts = [known[n].along(dim, n.meta["shape"][dim]) for n in nodes if isinstance(n, fx.Node)]
    return Bounds(dim, torch.cat([p.low for p in parts]), torch.cat([p.high for p in parts]))


def _anything(_: Operation, __: Known) -> Bounds:
    return _number(-inf, inf)


_RULES: dict[str, Callable[[Operation, Known], Bounds]] = {
    "conv": _conv,
    "linear": _linear,
    "norm": _norm,
    "activation": _activation,
    "same": _same,
    "max_pool": _max_pool,
    "mean_pool": _mean_pool,
    "mean": _mean,
    "flatten": _flatten,
    "reshape": _flatten,
    "add": _add,
    "subtract": _subtract,
    "multiply": _multiply,
    "join": _join,
}


# ---- arithmetic


def _product(weight: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds (rows,) of weight x, for weight (rows, columns, …) and x within (columns,)."""
    weight = weight.detach().double().cpu().reshape(*weight.shape[:2], -1)
    positive, negative = weight.clamp(min=0).sum(2), weight.clamp(max=0).sum(2)
    lowest = _times(positive, low) + _times(negative, high)
    highest = _times(positive, high) + _times(negative, low)
    return lowest.sum(1), highest.sum(1)


def _times(a: Tensor, b: Tensor) -> Tensor:
    """Multiply; zero times infinity is zero, as an unknown number is still a number."""
    return torch.where((a == 0) | (b == 0), 0.0, a * b)


def _shifted(given: Bounds, by: Tensor | None) -> Bounds:
    shift = 0.0 if by is None else by.detach().double().cpu()
    return Bounds(given.dim, given.low + shift, given.high + shift)


def _pair(op: Operation, known: Known) -> tuple[int | None, Bounds, Bounds]:
    """Return both sides of a + b with their channels along the same dimension of the result."""
    sides = [_side(op, argument, known) for argument in op.node.args[:2]]
    if op.node.kwargs or len(sides) < 2:
        sides = [_number(-inf, inf)] * 2
    dims = {side.dim for side in sides if side.dim is not None}
    if len(dims) > 1:
        sides = [side.hull() for side in sides]
    return (dims.pop() if len(dims) == 1 else None), sides[0], sides[1]


def _side(op: Operation, argument: Any, known: Known) -> Bounds:
    if isinstance(argument, int | float):
        return _number(argument, argument)
    if not isinstance(argument, fx.Node) or argument.meta["shape"] is None:
        return _number(-inf, inf)
    given, more = known[argument], len(op.shape or ()) - len(argument.meta["shape"])
    return given if given.dim is None else Bounds(given.dim + more, given.low, given.high)


def _apply(op: Operation, x: Tensor) -> Tensor:
    """Call the activation on bounds instead of activations."""
    if op.module is not None:
        result = op.module(x.clone())
    elif op.node.op == "call_method":
        result = getattr(x.clone(), str(op.node.target))(*op.node.args[1:], **op.node.kwargs)
    else:
        assert callable(op.node.target)
        result = op.node.target(x.clone(), *op.node.args[1:], **op.node.kwargs)
    assert isinstance(result, Tensor)
    return result
