"""The roofline: which limit holds a call back, computing or memory, and how far it is from it.

A call that does F FLOPs and moves Q bytes needs at least F / peak and at least Q / bandwidth
seconds, whichever is more. In terms of the arithmetic intensity I = F / Q it can reach at most
min(peak, I * bandwidth) FLOP/s: a slope that ends in a flat roof. They meet at the ridge, peak /
bandwidth. Left of it more FLOPs are free, and only moving less helps: a smaller dtype, fused
operations. Right of it only fewer or faster FLOPs help.

The model is optimistic about overlap, and the bytes of `traffic` are pessimistic about caches. So
a call can land above its roof when the caches held its data; read it then as "at the roof".

S. Williams, A. Waterman, D. Patterson: Roofline: an insightful visual performance model for
multicore architectures. Communications of the ACM 52(4), 2009. https://doi.org/10.1145/1498765.1498785
"""

import math
from dataclasses import dataclass
from typing import Literal

from labkit import units
from labkit.measure.ceiling import Ceiling


@dataclass(frozen=True)
class Standing:
    """Where a measured call stands under a roofline."""

    flops: int
    bytes: int
    seconds: float
    intensity: float
    """FLOP/byte."""
    achieved: float
    """GFLOP/s."""
    attainable: float
    """GFLOP/s under the roof at this intensity."""
    fraction: float
    """Shortest possible time over measured time; 1 is on the roof."""
    bound: Literal["memory", "compute"]
    ridge: float
    """FLOP/byte where the slope meets the flat roof."""

    def __str__(self) -> str:
        """Return the standing as a sentence."""
        side = "below" if self.bound == "memory" else "above"
        return (
            f"{units.duration(self.seconds)}, {self.achieved:.3g} of {self.attainable:.3g} GFLOP/s "
            f"attainable ({self.fraction:.0%}): {self.bound}-bound, "
            f"intensity {self.intensity:.3g} FLOP/byte, {side} the ridge at {self.ridge:.3g}"
        )


def predict_seconds(
    flops: float, bytes: float, ceiling: Ceiling, dtype: str = "fp32", kind: str = "convolution"
) -> float:
    """Return the shortest time, in seconds, that the roofline allows for this much work.

    Args:
        flops: floating-point operations, as `labkit.measure.flops` counts them; may be 0.
        bytes: bytes read and written, as `labkit.measure.traffic` counts them; may be 0.
        ceiling: the machine's measured peaks.
        dtype: the dtype that is computed in, one of those the ceiling has.
        kind: "convolution" or "matmul", the kind of most of the work.

    Raises:
        ValueError: a negative number, or a dtype or kind that the ceiling does not have.
    """
    _check_number("flops", flops, zero=True)
    _check_number("bytes", bytes, zero=True)
    return max(flops / ceiling.peak(dtype, kind), bytes / (ceiling.bandwidth.value * 1e9))


def standing(
    flops: int,
    bytes: int,
    seconds: float,
    ceiling: Ceiling,
    dtype: str = "fp32",
    kind: str = "convolution",
) -> Standing:
    """Place a measured call under the roofline.

    Args:
        flops: floating-point operations of the call; 0 for one that only moves data.
        bytes: bytes it reads and writes, more than 0.
        seconds: measured time, more than 0.
        ceiling: the machine's peaks, measured at about the same time.
        dtype: the dtype that is computed in, one of those the ceiling has.
        kind: "convolution" or "matmul", the kind of most of the work.

    Raises:
        ValueError: a number out of range, or a dtype or kind that the ceiling does not have.
    """
    _check_number("bytes", bytes)
    _check_number("seconds", seconds)
    shortest = predict_seconds(flops, bytes, ceiling, dtype, kind)
    peak, bandwidth = ceiling.peak(dtype, kind), ceiling.bandwidth.value * 1e9
    intensity, ridge = flops / bytes, ceiling.ridge(dtype, kind)
    return Standing(
        flops=flops,
        bytes=bytes,
        seconds=seconds,
        intensity=intensity,
        achieved=flops / seconds / 1e9,
        attainable=min(peak, intensity * bandwidth) / 1e9,
        fraction=shortest / seconds,
        bound="memory" if intensity < ridge else "compute",
        ridge=ridge,
    )


def _check_number(name: str, value: float, *, zero: bool = False) -> None:
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        wanted = "at least 0" if zero else "more than 0"
        raise ValueError(f"{name} must be a finite number, {wanted}, got {value!r}")
