"""What part of a data parallel step is computing? Four numbers that can be measured tell.

A step computes for a fixed time and for each image, then it averages gradients, whose bytes do not
depend on the batch. So a large batch a rank hides the sending, a small one drowns in it; and with
more ranks the ring has more steps, each with its latency, while a rank's bytes stay below twice the
gradient. This is the worst case: DistributedDataParallel hides part of the sending behind backward.
"""

from dataclasses import dataclass

from labkit.checks import check_number, check_positive_int
from labkit.plan.messages import MessageCost, ring_bytes


@dataclass(frozen=True)
class StepCost:
    """What a step costs.

    Attributes:
        fixed: seconds of computing that do not depend on the batch.
        image: seconds of computing for each image.
        message: of an all-reduce between two ranks.
        gradient: bytes.

    Raises:
        ValueError: a number is out of range.
    """

    fixed: float
    image: float
    message: MessageCost
    gradient: int

    def __post_init__(self) -> None:
        check_number("fixed", self.fixed, zero=True)
        check_number("image", self.image)  # else no batch would ever hide the sending
        check_number("gradient", self.gradient, zero=True)

    def computing(self, batch: float) -> float:
        """Return the seconds of computing for `batch` images a rank."""
        check_number("batch", batch)
        return self.fixed + batch * self.image

    def sending(self, ranks: int) -> float:
        """Return the seconds of a ring all-reduce of the gradient, when nothing hides it.

        Raises:
            ValueError: `ranks` is not a positive whole number.
        """
        check_positive_int("ranks", ranks)
        # Two ranks do 2 steps of the ring, n ranks 2 (n - 1).
        latency = (ranks - 1) * self.message.latency
        return latency + ring_bytes(self.gradient, ranks) * self.message.per_byte

    def efficiency(self, batch: float, ranks: int) -> float:
        """Return the share of a step that is computing, 0 to 1."""
        computing = self.computing(batch)
        return computing / (computing + self.sending(ranks))

    def smallest_batch(self, share: float, ranks: int) -> int:
        """Return the smallest power of two, in images a rank, with at least this efficiency.

        Raises:
            ValueError: `share` is not between 0 and 1.
        """
        if not 0 < share < 1:
            raise ValueError(f"share must lie between 0 and 1, got {share!r}")
        batch = 1  # ends: computing grows with the batch, sending does not
        while self.efficiency(batch, ranks) < share:
            batch *= 2
        return batch
