"""The two collectives of sharded states: reduce-scatter and all-gather of a flat tensor.

*Reduce-scatter* adds up what all ranks have and leaves each with its shard of the sum; *all-gather*
puts shards together again. An all-reduce is one after the other.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from labkit.checks import check_positive_int
from labkit.distributed.launcher.world import place


def flatten(tensors: Iterable[Tensor], ranks: int) -> Tensor:
    """Return all numbers in one row, with zeros at the end up to a multiple of `ranks`.

    Raises:
        ValueError: `ranks` is not a positive whole number.
    """
    check_positive_int("ranks", ranks)
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
    return nn.functional.pad(flat, (0, -len(flat) % ranks))


def reduce_scatter(flat: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """Return this rank's shard of the mean of all ranks' `flat`.

    Args:
        flat: (n,), n a multiple of the number of ranks.
        group: the ranks that share it; all, when None.
    """
    ranks = place(group)[1]
    shard = flat.new_empty(len(flat) // ranks)
    # The division comes first: a sum of 16-bit numbers would overflow sooner.
    dist.reduce_scatter(shard, list((flat / ranks).chunk(ranks)), group=group)
    return shard


def all_gather(flat: Tensor, shard: Tensor, group: dist.ProcessGroup | None = None) -> None:
    """Fill `flat` with the shards of all ranks, in their order.

    Args:
        flat: (n,), written to.
        shard: (n / ranks,), of this rank; it may be its own part of `flat`.
        group: the ranks that share it; all, when None.
    """
    dist.all_gather(list(flat.chunk(place(group)[1])), shard, group=group)
