"""The mean over all ranks of many tensors, sent as few messages.

Every message costs its latency, however small it is. So tensors of one dtype are glued together,
summed over the ranks as one, and taken apart again.
"""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

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
    share = 1 / dist.get_world_size() if share is None else share
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):  # in one order on all ranks
        alike = [tensor for tensor in tensors if tensor.dtype == dtype]
        # The weight comes first: a sum of 16-bit numbers would overflow sooner.
        flat = torch.cat([tensor.flatten() for tensor in alike]).mul_(share)
        all_reduce(flat)
        means = flat.split_with_sizes([tensor.numel() for tensor in alike])
        for tensor, mean in zip(alike, means, strict=True):
            tensor.copy_(mean.view(tensor.shape))
