"""Local SGD: train apart for some steps, then average the weights.

Data parallel talks in every step. Local SGD lets each rank take H steps on its own data, then all
of them take the mean of their weights, and so on: one H-th of the bytes, and H times fewer waits
for the slowest. Between two averages the ranks drift apart, the more so the larger H, the learning
rate, and the difference between their data; with H too large the mean of good weights is a bad
network. With H = 1 and SGD it *is* data parallel: the mean of w - lr g is w - lr mean(g). That
holds with momentum, too, but not with Adam, whose step is not linear in the gradient.

Momentum stays each rank's own. Running statistics of batch norm are averaged along with the
weights. In the same spirit, for real work: `torch.distributed.algorithms.model_averaging`.

Source: Stich, "Local SGD Converges Fast and Communicates Little", 2019; McMahan et al.,
"Communication-Efficient Learning of Deep Networks from Decentralized Data", 2017 (federated).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch.distributed as dist
from torch import nn

from labkit.checks import check_positive_int
from labkit.distributed.collectives.coalesced import AllReduce, coalesced_mean
from labkit.training import Step, Training


def average_parameters(model: nn.Module, all_reduce: AllReduce = dist.all_reduce) -> None:
    """Replace parameters and floating-point buffers by their means over all ranks.

    Args:
        model: the same on all ranks, but for the values.
        all_reduce: sums over ranks in place; a `NetworkMeter`'s counts as well.
    """
    # Statistics as well: the mean of the weights fits none of the ranks' own. Counters are equal.
    tensors = (*model.parameters(), *model.buffers())
    coalesced_mean([t.detach() for t in tensors if t.is_floating_point()], all_reduce=all_reduce)


@dataclass(frozen=True)
class average_ranks:
    """Average the ranks' weights after each `every` steps and after the last: a `between` value.

        train(model, batches, optimizer, between=(average_ranks(every=16),))

    Which step it is follows from the training itself, so there is nothing to remember. But between
    two averages each rank's weights are its own: each saves a checkpoint of its own.

    Args:
        every: H, steps between two averages; the same on all ranks, which train equally long a
            model that is not wrapped in DDP.
        all_reduce: see `average_parameters`.

    Raises:
        ValueError: `every` is not a positive whole number.
    """

    every: int
    all_reduce: AllReduce = dist.all_reduce

    def __post_init__(self) -> None:
        check_positive_int("every", self.every)

    def __call__(self, training: Training, steps: Iterator[Step]) -> Iterator[Step]:
        """Yield the steps; the average is taken before the step is shown."""
        for step in steps:
            if training.index % self.every == 0 or training.index == training.total:
                average_parameters(training.model, self.all_reduce)
            yield step
