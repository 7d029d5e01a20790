"""What a message costs: a latency, however small it is, and then so much a byte.

    seconds(message) = latency + bytes x seconds per byte

So gradients travel together, in *buckets*, not one by one. Many small buckets pay the latency many
times. A single large one pays it once, but cannot leave before backward has ended: nothing overlaps
with computing. DistributedDataParallel takes 25 MiB (`bucket_cap_mb`), and a small first bucket.

Two numbers say surprisingly much, yet not all: latency grows with the number of ranks, and messages
that are under way together share the cable.

Source: Hockney, "The communication challenge for MPP", 1994.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy

from labkit.checks import check_number, check_positive_int


@dataclass(frozen=True)
class MessageCost:
    """The two numbers of the model.

    Attributes:
        latency: seconds that each message costs.
        per_byte: seconds that each byte costs besides.

    Raises:
        ValueError: a number is out of range.
    """

    latency: float
    per_byte: float

    def __post_init__(self) -> None:
        check_number("latency", self.latency, zero=True)
        check_number("per_byte", self.per_byte)

    @property
    def break_even(self) -> float:
        """Bytes of the message whose latency takes as long as its transfer."""
        return self.latency / self.per_byte

    def seconds(self, total: float, bucket: float = math.inf) -> float:
        """Return the seconds for `total` bytes, in messages of at most `bucket` bytes.

        Raises:
            ValueError: `total` or `bucket` is not above zero.
        """
        if not (0 < total < math.inf and bucket > 0):
            raise ValueError(f"total and bucket must be above 0 bytes, got {total!r}, {bucket!r}")
        return max(1, math.ceil(total / bucket)) * self.latency + total * self.per_byte


def fit_cost(measured: Mapping[int, Sequence[float]]) -> MessageCost:
    """Return the line that comes nearest to the measured times, each error relative to its time.

    Args:
        measured: {bytes of a message: seconds, measured several times}; two sizes or more.

    Raises:
        ValueError: fewer than two sizes, or a size or time that is not above zero.
    """
    sizes = sorted(measured)
    if len(sizes) < 2:
        raise ValueError(f"measured must hold two sizes or more, got {sizes}")
    if not all(measured.values()):
        raise ValueError("measured must hold times for each size, got none for one")
    times = numpy.array([median(measured[size]) for size in sizes])
    if not ((times > 0) & (times < math.inf)).all() or not 0 < sizes[0] <= sizes[-1] < math.inf:
        raise ValueError("measured must hold times above zero for sizes above zero")
    # Least squares of the relative errors: else the largest messages alone would decide, and the
    # latency would be whatever is left over.
    columns = numpy.stack([numpy.ones(len(sizes)), numpy.array(sizes, dtype=float)], axis=1)
    (latency, per_byte), *_ = numpy.linalg.lstsq(
        columns / times[:, None], numpy.ones(len(sizes)), rcond=None
    )
    # On a noisy machine the line may slope down or start below zero; a cost cannot.
    if per_byte <= 0:
        return MessageCost(float(times.mean()), 1e-15)
    return MessageCost(max(float(latency), 1e-9), float(per_byte))


def ring_bytes(size: float, ranks: int) -> float:
    """Return how many bytes each rank sends for an all-reduce of a tensor of `size` bytes.

    Raises:
        ValueError: `ranks` is not a positive whole number, or `size` below 0.
    """
    check_positive_int("ranks", ranks)
    check_number("size", size, zero=True)
    return 2 * (ranks - 1) / ranks * size
