"""The mean over all ranks of many tensors, sent as few messages.

Every message costs its latency, however small it is. So tensors of one dtype are glued together,
summed over the ranks as one, and taken apart again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from labkit.distributed.launcher.world import place

AllReduce = Callable[[Tensor], object]
"""Sums a tensor over all ranks, in place."""


@torch.no_grad()
def coalesced_mean(
    tensors: Sequence[Tensor],
    share: float | None = None,
    *,
    all_reduce: AllReduce = dist.all_reduce,
) -> None:
    """Replace tensors, in place, by their mean over all ranks: one message for each dtype.

    Args:
        tensors: floating point, on one device; all ranks have as many, of the same shapes.
        share: this rank's weight in the mean; the weights of all ranks add up to 1. None: all
            ranks weigh the same.
        all_reduce: sums over ranks in place; a `NetworkMeter`'s counts as well.
    """
    share = 1 / place()[1] if share is None else share
    dense = [tensor for tensor in tensors if not tensor.is_sparse]
    for tensor in tensors:
        if tensor.is_sparse:  # an embedding's gradient can: it has rows of its own on each rank
            all_reduce(tensor.mul_(share))
    for dtype in dict.fromkeys(tensor.dtype for tensor in dense):  # in one order on all ranks
        alike = [tensor for tensor in dense if tensor.dtype == dtype]
        # The weight comes first: a sum of 16-bit numbers would overflow sooner.
        flat = torch.cat([tensor.flatten() for tensor in alike]).mul_(share)
        all_reduce(flat)
        means = flat.split_with_sizes([tensor.numel() for tensor in alike])
        for tensor, mean in zip(alike, means, strict=True):
            tensor.copy_(mean.view(tensor.shape))


@torch.no_grad()
def start_alike(model: nn.Module, group: dist.ProcessGroup | None = None) -> nn.Module:
    """Give each rank the first one's parameters and buffers; return `model`.

    DistributedDataParallel does so by itself. Who averages gradients by hand needs it: the same
    steps from different weights never meet.

    Args:
        model: of the same shape on all ranks.
        group: the ranks; all, when None.
    """
    place(group)
    for tensor in (*model.parameters(), *model.buffers()):
        dist.broadcast(tensor, group=group, group_src=0)
    return model


@dataclass(frozen=True)
class JoinedNorm:
    """The norm of this rank's tensors together with those that the other ranks hold.

    Args:
        group: the ranks; all, when None.
    """

    group: dist.ProcessGroup | None = None

    def __call__(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return it, on all ranks alike; float64, on the CPU, as a rank may hold nothing at all."""
        square = nn.utils.get_total_norm(tensors).double().square().cpu()
        dist.all_reduce(square, group=self.group)
        return square.sqrt()
