"""What all arms share: the optimizer, and batches that time the loop which asks for them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import median
from time import perf_counter

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]
LR, MOMENTUM = 0.05, 0.9


def optimizer(parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer that every arm uses."""
    return torch.optim.SGD(parameters, lr=LR, momentum=MOMENTUM)


def go_on() -> None:
    """Hand over to nobody: what a loop that runs alone does between two legs."""


class Clocked:
    """Ready batches with the clock inside.

    Every training loop, whatever it hides, asks for the next batch once a step. So the time from
    getting a batch to asking for the next is a whole step with all that the loop does around it,
    and the same clock fits all loops. What comes before the first request, the set-up, does not
    count. While a loop waits here for its batch, another can run.

    Args:
        batches: what to deliver.
        leg: steps between two calls of `hand_over`; the first is before the first step.
        hand_over: returns when this loop may go on.
        clock: gives seconds; a test passes its own.

    Attributes:
        seconds: of each step in the latest pass. A loop that fetches one batch ahead has a first
            entry without a step in it; one that asks for nothing after its last step lacks an
            entry there.
    """

    def __init__(
        self,
        batches: Sequence[Batch],
        leg: int = 1,
        hand_over: Callable[[], None] = go_on,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self.batches, self.leg, self.hand_over, self.clock = batches, leg, hand_over, clock
        self.seconds: list[float] = []

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        seconds = self.seconds = []
        for number, batch in enumerate(self.batches):
            if number % self.leg == 0:
                self.hand_over()
            given = self.clock()
            yield batch
            seconds.append(self.clock() - given)

    def legs(self, warmup: int) -> list[float]:
        """Return the median seconds of a step for each leg but the first `warmup` and the last."""
        starts = range(warmup * self.leg, len(self) - self.leg, self.leg)
        return [median(self.seconds[start : start + self.leg]) for start in starts]
