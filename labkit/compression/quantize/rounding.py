"""Floats to integers and back, where no kernel does it on its way: in pieces that stay in cache.

Around a layer that stays in float, and before each linear layer of a transformer, tensors must be
rounded in passes of their own. torch's `quantized_decomposed` operations, written to be compiled,
make a new tensor as large as the whole for each of five steps. Here a piece of the tensor goes
through all steps before the next piece starts, so the numbers between the steps never leave the
processor's cache. Every number comes out the same, to the bit.
"""

import torch
from torch import Tensor, fx

PIECE = 2**16
"""Numbers in a piece: 256 KiB of float32, which the second-level cache of most processors holds."""


def quantize_per_tensor(
    x: Tensor,
    scale: float | Tensor,
    zero_point: int | Tensor,
    low: int,
    high: int,
    dtype: torch.dtype,
) -> Tensor:
    """Return clamp(round(x / scale) + zero_point, low, high) as integers.

    Args:
        x: float32 (batch, ...).
        scale, zero_point: of the grid; numbers, or tensors of one element.
        low, high: the smallest and the largest integer of the grid.
        dtype: of the result.
    """
    steps, shift = 1.0 / float(scale), int(zero_point)
    integers = torch.empty_like(x, dtype=dtype)
    for piece, out in zip(_pieces(x), _pieces(integers), strict=True):
        out.copy_((piece * steps).round_().add_(shift).clamp_(low, high))
    return integers


def dequantize_per_tensor(
    integers: Tensor, scale: float | Tensor, zero_point: int | Tensor
) -> Tensor:
    """Return (integers - zero_point) * scale as float32."""
    step, shift = float(scale), int(zero_point)
    x = torch.empty_like(integers, dtype=torch.float32)
    for piece, out in zip(_pieces(integers), _pieces(x), strict=True):
        out.copy_(piece).sub_(shift).mul_(step)
    return x


def round_in_pieces(graph: fx.GraphModule) -> None:
    """Make the graph compute its roundings with the functions above."""
    operations = torch.ops.quantized_decomposed
    to_integers, to_floats = operations.quantize_per_tensor, operations.dequantize_per_tensor
    for node in graph.graph.nodes:
        if node.target in (to_integers.default, to_integers.tensor):
            node.target = quantize_per_tensor
        elif node.target in (to_floats.default, to_floats.tensor) and not node.kwargs:
            node.target, node.args = dequantize_per_tensor, node.args[:3]  # the rest is the range
    graph.recompile()


def _pieces(tensor: Tensor) -> tuple[Tensor, ...]:
    """Cut along the first dimension, the batch: other cuts would not lie together in memory."""
    rows = max(1, PIECE // max(1, tensor.shape[1:].numel()))
    return torch.split(tensor, rows)
