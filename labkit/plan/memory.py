"""Bytes of weights, gradients and optimizer states, and how many of them ZeRO leaves on each rank.

In fp32, AdamW keeps 16 bytes for each parameter: its weight, its gradient, and two moments. Plain
data parallel keeps all of that on every rank; the three stages of ZeRO share out one part after
another. What they send for it is in `labkit.distributed.parallel.sharding`.
"""

from typing import NamedTuple

from labkit.checks import check_number, check_positive_int

FP32 = (4, 4, 8)
"""Bytes a parameter: its weight, its gradient, AdamW's two moments."""


class StateBytes(NamedTuple):
    """Bytes that one rank keeps between backward pass and optimizer step."""

    weights: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        """Their sum."""
        return sum(self)


def zero_bytes(
    parameters: int, ranks: int, zero: int, each: tuple[int, int, int] = FP32
) -> StateBytes:
    """Return the bytes that each rank keeps in training with AdamW.

    Activations are not counted: sharding does not change them.

    Args:
        parameters: numbers in the whole model.
        ranks: that share them.
        zero: stage of ZeRO, 0 (plain data parallel) to 3.
        each: bytes a parameter for weight, gradient and optimizer.

    Raises:
        ValueError: a number is out of range.

    Source: Rajbhandari et al. 2020, figure 1, which has 2, 2 and 12 bytes (fp16 with an fp32 copy).
    """
    check_positive_int("parameters", parameters)
    check_positive_int("ranks", ranks)
    check_zero(zero, lowest=0)
    if len(each) != 3:
        raise ValueError(f"each must be bytes for weight, gradient and optimizer, got {each!r}")
    for size in each:
        check_number("each", size, zero=True)
    shard = -(-parameters // ranks)  # rounded up
    # Weights are shared out from stage 3 on, gradients from 2, the optimizer's states from 1.
    counts = [shard if zero >= first else parameters for first in (3, 2, 1)]
    return StateBytes(*(size * count for size, count in zip(each, counts, strict=True)))


def check_zero(zero: int, lowest: int) -> None:
    """Raise ValueError unless `zero` is a stage of ZeRO, from `lowest` to 3."""
    if isinstance(zero, bool) or zero not in range(lowest, 4):
        raise ValueError(f"zero must be a stage of ZeRO, {lowest} to 3, got {zero!r}")
