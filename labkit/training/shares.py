"""What each of several batches adds to the mean over all of them.

Their gradients add up to those of one large batch only if each is weighed by what its own mean was
taken over: by targets, not by examples, and over all ranks that share the batch.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from labkit.training.task import Batch, Task


@runtime_checkable
class Joined(Protocol):
    """A task of ranks that share a batch: they must agree on what all of it weighs."""

    def total_weight(self, weight: float) -> float:
        """Return the sum of `weight` over all ranks."""


def shares(task: Task, batches: Sequence[Batch], where: str) -> list[float]:
    """Return each batch's share of the mean over all of them, from what its own is taken over.

    Counted before the first forward pass: half-way through, nobody knows what a batch is a share
    of.

    Args:
        task: says what each batch weighs.
        batches: whose gradients are added up.
        where: names them in the error, such as "step 3".

    Raises:
        ValueError: no target counts.
    """
    weights = [task.weight(batch) for batch in batches]
    total = task.total_weight(sum(weights)) if isinstance(task, Joined) else sum(weights)
    if not total > 0:
        raise ValueError(f"no target counts in {where}: all of them are ignored")
    return [weight / total for weight in weights]


def nothing(model: nn.Module) -> Tensor:
    """Return a loss of 0 that gives every parameter a gradient of 0.

    The mean over no targets is not a number. To leave the backward pass out would not do: other
    ranks wait for this one's gradients.
    """
    sums = [parameter.sum() for parameter in model.parameters() if parameter.requires_grad]
    return torch.stack(sums).sum() * 0
