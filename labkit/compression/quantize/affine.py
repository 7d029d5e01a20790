"""Numbers on a grid of integers: scale, zero point, rounding, and a product in integers.

A float becomes the integer nearest to value / scale + zero point, clipped to what the bits hold;
back again, it is (integer - zero point) * scale. Inside the range nothing moves by more than half a
step; outside it all is clipped. So the range decides: wide means coarse, narrow means clipped.

    affine      0 ... 255     two free ends, for activations; zero is always exact
    symmetric   -128 ... 127  zero point 0, for weights; a product then needs fewer corrections
    per channel               a scale for each output channel: one wide channel spoils no other

Integers pay because an 8-bit product is a quarter of the traffic and, on processors with
instructions for it, several times the products a second. The functions here are made to be read;
for speed use `static`, which lowers a model to kernels of torchao.

Sources: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", 2017; the straight-through gradient from Bengio et al.,
"Estimating or Propagating Gradients Through Stochastic Neurons", 2013.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

TINY = torch.finfo(torch.float32).tiny  # the smallest scale whose reciprocal is still finite
LARGEST = 2**31 - 1  # int32


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the representable numbers lie: (integer - zero_point) * scale, low <= integer <= high.

    Args:
        scale: step between neighbours, float () or (channels,), positive.
        zero_point: the integer that stands for 0.0, int32, of the scale's shape.
        low, high: first and last integer.
        dim: which dimension of a tensor the channels are; None when one scale serves all.
    """

    scale: Tensor
    zero_point: Tensor
    low: int
    high: int
    dim: int | None = None

    def __post_init__(self) -> None:
        if self.scale.shape != self.zero_point.shape or self.scale.ndim > 1:
            raise ValueError(
                "scale and zero_point must both be () or (channels,), "
                f"got {tuple(self.scale.shape)} and {tuple(self.zero_point.shape)}"
            )
        if (self.dim is None) != (self.scale.ndim == 0):
            raise ValueError(f"dim must be given just for scales by channel, got {self.dim}")
        if not (self.scale.isfinite() & (self.scale > 0)).all():
            raise ValueError(f"scale must be finite and above zero, got {self.scale}")
        zero, low, high = self.zero_point, self.low, self.high
        whole = not zero.is_floating_point() and isinstance(low, int) and isinstance(high, int)
        if not (whole and low < high and ((zero >= low) & (zero <= high)).all()):
            raise ValueError(
                "low, high and zero_point must be whole numbers with low <= zero_point <= high, "
                f"got {low}, {high} and {zero}"
            )

    def along(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale and zero point in a shape that broadcasts over `tensor`.

        Raises:
            ValueError: the tensor has not as many channels as the grid.
        """
        if self.dim is None:
            return self.scale, self.zero_point
        if not -tensor.ndim <= self.dim < tensor.ndim or tensor.shape[self.dim] != len(self.scale):
            raise ValueError(
                f"tensor must have {len(self.scale)} channels in dimension {self.dim}, "
                f"got shape {tuple(tensor.shape)}"
            )
        shape = [1] * tensor.ndim
        shape[self.dim] = -1
        return self.scale.view(shape), self.zero_point.view(shape)


def integer_range(bits: int, symmetric: bool) -> tuple[int, int]:
    """Return the first and the last integer: 0 ... 2^bits - 1, or as many around zero.

    Raises:
        ValueError: bits that are not a whole number from 2 to 8.
    """
    if not isinstance(bits, int) or isinstance(bits, bool) or not 2 <= bits <= 8:
        raise ValueError(f"bits must be a whole number from 2 to 8, got {bits!r}")
    first = -(2 ** (bits - 1)) if symmetric else 0
    return first, first + 2**bits - 1


def grid(low: float | Tensor, high: float | Tensor, bits: int = 8, symmetric: bool = False) -> Grid:
    """Return the finest grid that reaches from `low` to `high`, both within half a step.

    The range is widened to hold zero, which padding and ReLU need exactly. A symmetric grid has one
    more step below zero than above: its scale is the smallest that both ends allow.

    Args:
        low, high: the clipping range: numbers, or tensors (channels,) of dimension 0.
        bits: 2 to 8.
        symmetric: zero point 0, and integers on both sides of it.

    Raises:
        ValueError: bits out of range; a range that is not finite, or whose ends are swapped.
    """
    first, last = integer_range(bits, symmetric)
    low, high = _ends(low, high)
    scale = torch.maximum(low / first, high / last) if symmetric else (high - low) / (last - first)
    if not scale.isfinite().all():
        raise ValueError("low and high must be finite and not too far apart for float32")
    scale = scale.clamp(min=TINY)  # nothing but zeros: any scale will do
    zero_point = torch.zeros_like(scale) if symmetric else first - torch.round(low / scale)
    return Grid(scale, zero_point.to(torch.int32), first, last, 0 if scale.ndim else None)


def grid_of(tensor: Tensor, bits: int = 8, symmetric: bool = False, dim: int | None = None) -> Grid:
    """Return the grid from the smallest to the largest value, of all or of each slice of `dim`.

    Raises:
        TypeError: not a tensor of floats.
        ValueError: an empty tensor, values that are not finite, bits or dim out of range.
    """
    _check_floats(tensor)
    if tensor.numel() == 0:
        raise ValueError(f"tensor must not be empty, got shape {tuple(tensor.shape)}")
    tensor = tensor.detach()
    if dim is None:
        return grid(tensor.amin(), tensor.amax(), bits, symmetric)
    if isinstance(dim, bool) or not -tensor.ndim <= dim < tensor.ndim:
        raise ValueError(f"dim must be a dimension of shape {tuple(tensor.shape)}, got {dim}")
    slices = tensor.movedim(dim, 0).flatten(1) if tensor.ndim > 1 else tensor[:, None]
    return replace(grid(slices.amin(1), slices.amax(1), bits, symmetric), dim=dim)


def to_integers(tensor: Tensor, grid: Grid) -> Tensor:
    """Return the nearest integers of the grid, int32; what lies outside is clipped.

    Raises:
        TypeError: not a tensor of floats.
        ValueError: values that are not a number, or other channels than the grid's.
    """
    return _places(tensor, grid).clamp(grid.low, grid.high).to(torch.int32)


def to_floats(integers: Tensor, grid: Grid) -> Tensor:
    """Return (integers - zero point) * scale, in the scale's dtype.

    Raises:
        ValueError: integers that are none, or lie outside the grid; other channels than the grid's.
    """
    if integers.is_floating_point() or ((integers < grid.low) | (integers > grid.high)).any():
        raise ValueError(f"integers must be whole numbers from {grid.low} to {grid.high}")
    return _floats(integers, grid)


def round_trip(tensor: Tensor, grid: Grid) -> Tensor:
    """Return to_floats(to_integers(tensor)): what is left of the values after storing them.

    A staircase has slope zero almost everywhere, so nothing could be trained through it. Its
    gradient here is that of the line it follows ("straight through"): 1 inside the range, and 0
    outside, where clipping holds the output still.
    """
    rounded: Tensor = _RoundTrip.apply(tensor, grid)
    return rounded


def integer_linear(
    x: Tensor, weight: Tensor, x_grid: Grid, weight_grid: Grid, bias: Tensor | None = None
) -> Tensor:
    """Return x @ weight' + bias as an int8 kernel computes it: products and sums in int32.

    With integers q and zero points z, a sum of (q_x - z_x)(q_w - z_w) is the sum of q_x q_w and
    three corrections. Weights with zero point 0 need only one of them, known before x is.

    Args:
        x: float (..., inputs).
        weight: float (outputs, inputs).
        x_grid: one scale for all of x: a scale by input could not be taken out of the sum.
        weight_grid: one scale, or one by output (dim 0).
        bias: float (outputs,), added to the result; it stays float here.

    Returns:
        float32 (..., outputs): the float product of the round-tripped tensors, to float rounding.
        The product runs on the CPU, as torch has none for int32 elsewhere.

    Raises:
        ValueError: a grid by another dimension, shapes that do not fit, or so many inputs that
            int32 could overflow.
    """
    if x_grid.dim is not None or weight_grid.dim not in (None, 0):
        raise ValueError(
            "x_grid must hold one scale and weight_grid one or one by output (dim 0), "
            f"got dim {x_grid.dim} and {weight_grid.dim}"
        )
    if weight.ndim != 2 or x.shape[-1:] != weight.shape[1:]:
        raise ValueError(
            "x must be (..., inputs) and weight (outputs, inputs), "
            f"got {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be ({len(weight)},), got {tuple(bias.shape)}")
    inputs = weight.shape[1]
    if inputs > (longest := LARGEST // (_reach(x_grid) * _reach(weight_grid))):
        raise ValueError(f"int32 holds any sum of {longest} products at most, got {inputs} inputs")
    q_x, q_w = to_integers(x, x_grid), to_integers(weight, weight_grid)
    z_x, z_w = x_grid.zero_point, weight_grid.zero_point
    sums = F.linear(q_x.cpu(), q_w.cpu()).to(x.device)  # int32 times int32 into int32
    sums = sums - z_x * q_w.sum(1, dtype=torch.int32)
    sums = sums - z_w * q_x.sum(-1, keepdim=True, dtype=torch.int32) + inputs * z_x * z_w
    product = sums * (x_grid.scale * weight_grid.scale)
    return product if bias is None else product + bias


class _RoundTrip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, grid: Grid) -> Tensor:
        if ctx.needs_input_grad[0]:
            places = _places(tensor, grid)
            ctx.save_for_backward((places >= grid.low) & (places <= grid.high))
        return _floats(to_integers(tensor, grid), grid)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None


def _floats(integers: Tensor, grid: Grid) -> Tensor:
    scale, zero_point = grid.along(integers)
    return (integers - zero_point).to(scale.dtype) * scale


def _places(tensor: Tensor, grid: Grid) -> Tensor:
    """The nearest whole numbers, before they are clipped, still float."""
    _check_floats(tensor)
    if tensor.isnan().any():
        raise ValueError("tensor must hold numbers, got not-a-number")
    scale, zero_point = grid.along(tensor)
    # times 1 / scale, as torch's kernels have it, so that ties fall on the same side
    return torch.round(tensor.float() * (1 / scale)) + zero_point


def _ends(low: float | Tensor, high: float | Tensor) -> tuple[Tensor, Tensor]:
    """Both ends as float32, with zero between them."""
    low, high = (torch.as_tensor(end, dtype=torch.float32) for end in (low, high))
    if low.shape != high.shape or low.ndim > 1 or low.numel() == 0:
        raise ValueError(
            "low and high must both be numbers or both (channels,), "
            f"got {tuple(low.shape)} and {tuple(high.shape)}"
        )
    if not (low.isfinite() & high.isfinite() & (low <= high)).all():
        raise ValueError(f"low and high must be finite with low <= high, got {low} and {high}")
    return low.clamp(max=0.0), high.clamp(min=0.0)


def _reach(grid: Grid) -> int:
    """The largest size of an integer, with or without its zero point."""
    first, last = int(grid.zero_point.min()), int(grid.zero_point.max())
    return max(abs(grid.low), abs(grid.high), grid.high - first, last - grid.low)


def _check_floats(tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"tensor must be a tensor of floats, got {kind}")
