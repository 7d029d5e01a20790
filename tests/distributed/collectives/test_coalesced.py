"""Many tensors become their means over all ranks, in one message for each dtype."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from labkit.distributed import init, launch
from labkit.distributed.collectives.coalesced import coalesced_mean

KINDS = [
    (torch.float32, (3, 2)),
    (torch.float64, (4,)),
    (torch.float32, ()),
    (torch.bfloat16, (2,)),
]


def averaged(share: list[float] | None) -> tuple[list[torch.Tensor], int]:
    """Return the means of tensors full of rank + 1, and how many messages it took."""
    messages = []

    def counted(tensor: torch.Tensor) -> None:
        messages.append(tensor.dtype)
        dist.all_reduce(tensor)

    with init() as world:
        tensors = [torch.full(shape, world.rank + 1.0, dtype=dtype) for dtype, shape in KINDS]
        tensors.append(
            torch.full((2, 3, 4, 4), world.rank + 1.0).to(memory_format=torch.channels_last)
        )
        coalesced_mean(tensors, None if share is None else share[world.rank], all_reduce=counted)
    return tensors, len(messages)


@pytest.mark.parametrize(
    ("ranks", "share", "mean"), [(2, None, 1.5), (3, None, 2.0), (2, [0.25, 0.75], 1.75)]
)
def test_means(ranks: int, share: list[float] | None, mean: float) -> None:
    for tensors, messages in launch(averaged, ranks, deadline=60, share=share):
        assert messages == 3  # float32, float64, bfloat16
        for tensor in tensors:
            assert torch.allclose(tensor, torch.full_like(tensor, mean))
        assert tensors[-1].is_contiguous(memory_format=torch.channels_last)
