"""Ways to make one model of many ranks' gradients, timed against each other.

How much of what data parallel loses is sending, how much is packing, how much is waiting? No single
number tells. So the ways take turns, on the same ranks at the same time, with two controls at the
ends: ranks that never speak (the *ceiling*: no way can be faster), and ranks that send nothing but
wait for each other after backward (what that loses, no better way to send can win back).

A way is two functions: what wraps the model, and what is done after backward. The step itself is
the same for all of them.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import record_function

from labkit import models
from labkit.distributed.collectives.coalesced import AllReduce, start_alike
from labkit.distributed.collectives.network_meter import NetworkMeter
from labkit.distributed.collectives.rank_timing import interleave_ranks
from labkit.distributed.collectives.shared_memory import shared_memory
from labkit.distributed.launcher.world import init
from labkit.distributed.parallel.data import average_coalesced, average_gradients, data_parallel

CEILING, MEETING = "no communication", "meeting"
STEPS = 3
"""Training steps in a sample. In a single one, whoever is late would have no time to catch up."""


class Averaging(NamedTuple):
    """A way to make one model of many: what wraps it, and what is done after backward."""

    wrap: Callable[[nn.Module], nn.Module] = lambda model: model
    after: Callable[[nn.Module], object] = lambda model: None


class ThroughMemory:
    """`average_coalesced`, through memory that the ranks of one machine share.

    The memory is made at a model's first call: to make it, all ranks must meet.
    """

    def __init__(self) -> None:
        self._model: nn.Module | None = None
        self._all_reduce: AllReduce = dist.all_reduce

    def __call__(self, model: nn.Module) -> None:
        """Replace the gradients by their means over all ranks; float32, on the CPU."""
        if self._model is not model:
            self._model = model
            self._all_reduce = shared_memory(sum(one.numel() for one in model.parameters()))
        average_coalesced(model, all_reduce=self._all_reduce)


def _contiguous(model: nn.Module) -> nn.Module:
    # Gradients then lie in memory otherwise than the buckets. On some processors torch warns of
    # that; here it is the point.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    return data_parallel(model.to(memory_format=torch.contiguous_format))


def _meet(model: nn.Module) -> None:
    dist.barrier()


AVERAGINGS: Mapping[str, Averaging] = {
    CEILING: Averaging(),
    "naive": Averaging(start_alike, average_gradients),
    "one message": Averaging(start_alike, average_coalesced),
    "one message, shared memory": Averaging(start_alike, ThroughMemory()),
    # It sends rank 0's buffers round before each forward pass, and copies gradients into buckets.
    "DDP, as it comes": Averaging(DistributedDataParallel),
    "DDP, tuned": Averaging(data_parallel),
    "DDP, small buckets": Averaging(partial(data_parallel, bucket_mib=0.05)),
    "DDP, in bf16": Averaging(
        lambda model: data_parallel(model, meter=NetworkMeter(torch.bfloat16))
    ),
    "DDP, contiguous weights": Averaging(_contiguous),
    MEETING: Averaging(after=_meet),
}


class RepeatedStep:
    """The same training step on one batch of noise, which computes as pictures do.

    Args:
        averaging: how the ranks' gradients become one.
        make: makes the model, the same on each rank.
        shape: of a rank's batch; four dimensions are taken as images, and lie channels last.
        device: of this rank.
    """

    def __init__(
        self,
        averaging: Averaging,
        make: Callable[[], nn.Module],
        shape: Sequence[int],
        device: torch.device,
    ) -> None:
        torch.manual_seed(0)
        layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
        model = make().to(device).to(memory_format=layout)
        self.model, self._after = averaging.wrap(model), averaging.after
        # A rate so small that nothing diverges, however often the batch comes.
        self._optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-4, momentum=0.9)
        self._inputs = torch.randn(*shape).to(device=device, memory_format=layout)
        self._labels = torch.arange(shape[0], device=device) % 10

    def step(self) -> None:
        """Do one step; a profile shows its parts by name."""
        self._optimizer.zero_grad()
        with record_function("forward"):
            loss = F.cross_entropy(self.model(self._inputs), self._labels)
        with record_function("backward"):
            torch.autograd.backward(loss)
            self._after(self.model)
        with record_function("optimizer"):
            self._optimizer.step()

    def steps(self) -> None:
        """Do STEPS of them."""
        for _ in range(STEPS):
            self.step()


def time_averagings(
    rounds: int,
    averagings: Mapping[str, Averaging] = AVERAGINGS,
    *,
    make: Callable[[], nn.Module] = models.convnet,
    shape: Sequence[int] = (128, 1, 28, 28),
) -> dict[str, list[float]]:
    """Time ways to average in turn, on all ranks: call it with `launch`.

    Args:
        rounds: samples of each way.
        averagings: what to compare.
        make: makes the model.
        shape: of a rank's batch.

    Returns:
        {way: for each round the seconds of STEPS steps of the slowest rank}.
    """
    with init() as world:
        steps = {
            name: RepeatedStep(averaging, make, shape, world.device)
            for name, averaging in averagings.items()
        }
        return interleave_ranks({name: one.steps for name, one in steps.items()}, rounds)
