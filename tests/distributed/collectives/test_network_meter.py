"""What ranks send, and how long they wait: against arithmetic and planted delays."""

from __future__ import annotations

from time import perf_counter, sleep

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from labkit import models
from labkit.distributed import init, launch
from labkit.distributed.collectives.network_meter import NetworkMeter


def gradients_of(rank, hook, cap, meter=None):
    """Return the gradients that DDP leaves on a rank, with or without our hook."""
    torch.manual_seed(0)
    ddp = DistributedDataParallel(models.mlp(), bucket_cap_mb=cap)
    if hook:
        ddp.register_comm_hook(meter, NetworkMeter.hook)
    generator = torch.Generator().manual_seed(rank)
    for _ in range(3):  # DDP sorts its buckets after the first
        ddp.zero_grad()
        ddp(torch.randn(8, 64, generator=generator)).square().mean().backward()
    return [p.grad for p in ddp.parameters()]


def metered(travel_as=None, cap=25):
    with init() as world:
        meter = NetworkMeter(travel_as)
        return (
            gradients_of(world.rank, True, cap, meter),
            gradients_of(world.rank, False, cap),
            meter.take(),
            meter.take(),
        )


BYTES = 4 * (64 * 64 + 64 + 64 * 10 + 10)  # of the gradients in float32


@pytest.mark.parametrize(("ranks", "cap"), [(1, 25), (2, 25), (2, 0.01), (3, 25)])
def test_the_hook_averages_as_ddp_does_and_counts_by_the_ring(ranks, cap):
    for ours, theirs, (sent, waiting), after in launch(metered, ranks, cap=cap, deadline=60):
        torch.testing.assert_close(ours, theirs)
        assert sent == pytest.approx(3 * BYTES * 2 * (ranks - 1) / ranks, abs=12)
        assert 0 < waiting < 30
        assert after == (0, 0.0)


def test_half_the_bits_are_half_the_bytes():
    for ours, theirs, (sent, _), _ in launch(metered, 2, travel_as=torch.bfloat16, deadline=60):
        assert sent == 3 * BYTES / 2
        torch.testing.assert_close(ours, theirs, rtol=2**-6, atol=1e-4)
        assert not torch.equal(ours[0], theirs[0])
        assert ours[0].dtype == torch.float32


class SlowBackward(torch.autograd.Function):
    """The identity, with a delay in backward."""

    @staticmethod
    def forward(ctx, x, seconds):
        ctx.seconds = seconds
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        sleep(ctx.seconds)
        return grad, None


def waiting_for_rank_1(delay):
    """Rank 1 comes late to its only all-reduce, or late out of the backward pass."""
    with init() as world:
        meter = NetworkMeter()
        late = delay * world.rank
        sleep(late)
        tensor = torch.full((5,), float(world.rank + 1))
        meter.all_reduce(tensor)
        plain = meter.take()

        layer = nn.Linear(4, 4)
        ddp = DistributedDataParallel(layer)
        ddp.register_comm_hook(meter, NetworkMeter.hook)
        start = perf_counter()
        SlowBackward.apply(ddp(torch.ones(1, 4)), late).sum().backward()
        return tensor.tolist(), plain, meter.take(), perf_counter() - start


def test_only_the_early_rank_waits():
    delay = 0.3
    first, second = launch(waiting_for_rank_1, delay=delay, deadline=60)
    for tensor, plain, _, _ in (first, second):
        assert tensor == [3.0] * 5  # a sum, in place
        assert plain[0] == 20
    for what in (1, 2):  # the plain all-reduce, and DDP's
        assert first[what][1] > 0.8 * delay
        assert first[what][1] > second[what][1] + 0.5 * delay
    assert second[3] > delay and first[3] > 0.8 * delay


class TwoLayers(nn.Module):
    """Two layers with a delay between them in backward: a bucket each."""

    def __init__(self, delay):
        super().__init__()
        self.first, self.second, self.delay = nn.Linear(8, 8), nn.Linear(8, 8), delay

    def forward(self, x):
        return self.second(SlowBackward.apply(self.first(x), self.delay))


def overlapped():
    """Rank 0's first bucket travels late, because rank 1 starts late; both end together."""
    with init() as world:
        ddp = DistributedDataParallel(TwoLayers(0.8 - 0.5 * world.rank), bucket_cap_mb=1e-4)
        meter = NetworkMeter()
        ddp.register_comm_hook(meter, NetworkMeter.hook)
        for _ in range(2):
            meter.take()
            outputs = ddp(torch.ones(1, 8)).sum()
            dist.barrier()
            sleep(0.5 * world.rank)
            outputs.backward()
        return meter.take()[1]


def test_what_backward_hides_is_no_waiting():
    assert launch(overlapped, deadline=60)[0] < 0.3  # of the 0.5 s that it lay there
