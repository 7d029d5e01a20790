"""Which part of the values to cover: three ways to choose a clipping range.

A grid of 256 steps can reach far or be fine. Min-max clips nothing, and one outlier makes every
step wide. A percentile gives up the outliers. Least error tries many ranges and keeps the one whose
rounding and clipping together cost the least. With 8 bits all three are close on most layers; with
4 bits the difference is large.

The values are cut at the same distance on both sides, so the short side of a lopsided distribution
(all that follows an activation function) stays whole.

Sources: Banner et al., "Post training 4-bit quantization of convolutional networks for
rapid-deployment", 2019, on clipping; Nagel et al., "A White Paper on Neural Network Quantization",
2021, on the search for the least squared error.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from labkit.compression.quantize.affine import grid, integer_range, round_trip

SHRINK = tuple(0.95**step for step in range(64))  # from the whole range to a twenty-fifth of it


def min_max(values: Tensor) -> tuple[float, float]:
    """Return the smallest and the largest value.

    Args:
        values: float, any shape.

    Raises:
        ValueError: no values, or values that are not finite.
    """
    _check(values)
    low, high = torch.aminmax(values.detach())
    return low.item(), high.item()


def percentile(values: Tensor, share: float = 0.999) -> tuple[float, float]:
    """Return the range that `share` of the values lie in, cut at one distance from zero.

    Args:
        values: float, any shape.
        share: above 0, up to 1; with 1 it is `min_max`.

    Raises:
        ValueError: no values, values that are not finite, or a share out of range.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise ValueError(f"share must be a number above 0 and up to 1, got {share!r}")
    low, high = min_max(values)
    sizes = values.detach().flatten().float().abs()
    return _cut(low, high, sizes.kthvalue(math.ceil(share * len(sizes))).values.item())


@torch.no_grad()
def least_error(values: Tensor, bits: int = 8, symmetric: bool = False) -> tuple[float, float]:
    """Return, of 64 ranges, the one with the least mean squared error of the round trip.

    The whole range is one of them, so it is never worse than `min_max`. Costs 64 round trips.

    Args:
        values: float, any shape.
        bits, symmetric: of the grid that the range is meant for; see `affine.grid`.

    Raises:
        ValueError: no values, values that are not finite, or bits out of range.
    """
    integer_range(bits, symmetric)
    low, high = min_max(values)
    farthest = max(-low, high)
    ranges = [_cut(low, high, share * farthest) for share in SHRINK]

    def error(ends: tuple[float, float]) -> float:
        rounded = round_trip(values, grid(*ends, bits=bits, symmetric=symmetric))
        return (rounded - values).square().mean(dtype=torch.float64).item()

    return min(ranges, key=error)  # of equals the first, the widest


RANGES: dict[str, Callable[[Tensor, int], tuple[float, float]]] = {
    "min-max": lambda values, _: min_max(values),
    "percentile": lambda values, _: percentile(values),
    "mse": least_error,
}
"""Name -> (values, bits of an affine grid) -> clipping range."""


def check_ranges(ranges: str) -> None:
    """Raise a ValueError unless `ranges` is a name in `RANGES`."""
    if ranges not in RANGES:
        raise ValueError(f"ranges must be one of {', '.join(RANGES)}, got {ranges!r}")


def _cut(low: float, high: float, distance: float) -> tuple[float, float]:
    """The part of low ... high that is at most `distance` from zero; of nothing, its near end."""
    return max(low, min(-distance, high)), min(high, max(distance, low))


def _check(values: Tensor) -> None:
    if values.numel() == 0:
        raise ValueError("values is empty: there is no range to find")
    if not values.isfinite().all():
        raise ValueError("values must be finite, got infinity or not-a-number")
