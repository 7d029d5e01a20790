"""Data parallel: the same model on every rank, a part of each batch, the mean of all gradients.

The gradient of a mean over samples is the mean of the samples' gradients. So ranks that average
their *gradients* take the very step that one process would take with the joined batch. (Averaging
*parameters* after each step is the same for plain SGD only, with or without momentum: Adam, weight
norms and clipping are not linear in the gradient.)

`average_gradients` is the naive way, to read and to understand: one all-reduce for each parameter
when backward is over. `average_coalesced` sends all of them as one message. `data_parallel` is
torch's DistributedDataParallel, which gathers gradients in *buckets* and sends each as soon as it
is full, while backward computes the rest: use that one.

Costs: every step sends about twice the gradients' bytes a rank, whatever the batch. So it pays when
the computing of a rank's part takes longer than that. Layers that look at the whole batch, such as
batch norm, see only this rank's part.

Source: Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", 2020.
"""

import inspect
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Variable
from torch.nn.parallel import DistributedDataParallel

from labkit.checks import check_number, check_positive_int, check_whole
from labkit.data import EpochBatches
from labkit.distributed.collectives.coalesced import AllReduce, coalesced_mean
from labkit.distributed.collectives.network_meter import NetworkMeter
from labkit.distributed.launcher.world import place
from labkit.facts import default_device
from labkit.training import Batch, Metric, Task


def average_gradients(
    model: nn.Module, weight: float | None = None, *, all_reduce: AllReduce = dist.all_reduce
) -> None:
    """Replace each gradient by its mean over all ranks: call it after backward.

    A parameter that got no gradient on this rank counts as zero, since the others send theirs.

    Args:
        model: the same on all ranks.
        weight: of the targets that this rank's loss was the mean of, `task.weight(batch)`, if ranks
            may differ; it may be 0. None: all ranks weigh the same.
        all_reduce: sums over ranks in place; a `NetworkMeter`'s counts as well.
    """
    share = _share(model, weight)
    for gradient in _gradients(model, share):
        gradient.mul_(share)
        all_reduce(gradient)


def average_coalesced(
    model: nn.Module, weight: float | None = None, *, all_reduce: AllReduce = dist.all_reduce
) -> None:
    """Do the same with one message: every message costs its latency, however small it is.

    Args:
        model, weight, all_reduce: as for `average_gradients`.
    """
    share = _share(model, weight)
    coalesced_mean(_gradients(model, share), share, all_reduce=all_reduce)


def _gradients(model: nn.Module, share: float) -> list[Tensor]:
    """Return the gradients of all that is trained, as zeros where there is none."""
    trained = list(_trained(model).values())
    for parameter in trained:
        # Without targets the mean loss is not a number, nor is its gradient, and 0 x NaN is NaN.
        if parameter.grad is None or share == 0:
            parameter.grad = torch.zeros_like(parameter)
    return [parameter.grad for parameter in trained if parameter.grad is not None]


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return {name: parameter} of what is trained."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trained:
        raise ValueError("model must have a parameter that is trained, it has none")
    return trained


def _share(model: nn.Module, weight: float | None) -> float:
    """Return this rank's share of the mean, 0 to 1."""
    ranks = place()[1]
    if weight is None:
        return 1 / ranks
    check_number("weight", weight, zero=True)
    return weight / _over_all_ranks(weight, next(iter(_trained(model).values())).device)


def _over_all_ranks(weight: float, device: torch.device) -> float:
    # float64: many targets are no longer counted one by one in float32 from 16 million on.
    total = torch.tensor(weight, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    if not total:  # on all ranks alike, so none is left waiting
        raise ValueError("no target counts on any rank: there is nothing to average")
    return float(total)


@dataclass(frozen=True)
class joined_mean:
    """A task for ranks whose parts of a batch weigh differently, for use with `data_parallel`.

    DistributedDataParallel gives each rank the same weight. With this task, `train` scales a rank's
    loss by its share of all targets that count, over all ranks and all batches of the step, so that
    the mean over ranks, of losses as of gradients, is that of one process with the joined batch. A
    rank without targets takes part with zeros. It costs a small message a step: where all parts
    weigh the same, do without.

    Args:
        task: whose `weight` says how much a batch counts.
    """

    task: Task

    @property
    def metric(self) -> Metric:
        """The task's own."""
        return self.task.metric

    def weight(self, batch: Batch) -> float:
        """Return what this rank's batch weighs."""
        return self.task.weight(batch)

    def total_weight(self, weight: float) -> float:
        """Return the sum of `weight` over all ranks."""
        return _over_all_ranks(weight, default_device())

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the task's loss, times the number of ranks: their mean is taken afterwards."""
        # DDP divides by the number of ranks; `train` has multiplied by this rank's share.
        return self.task.loss(model, batch) * place()[1]

    def score(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the task's own scores."""
        return self.task.score(model, batch)


class Accumulating(DistributedDataParallel):
    """DistributedDataParallel that sends only with the last of `accumulate` batches.

    torch leaves that to the loop, which must know that it is parallel (`no_sync` around some
    batches). Here the model counts, so that the loop stays what it is. `train` says before each
    step how many batches it has: the last one of an epoch may have fewer.
    """

    def __init__(self, model: nn.Module, accumulate: int, **settings: Any) -> None:
        super().__init__(model, **settings)
        self._accumulate, self._batches, self._sends = accumulate, 0, False
        self._missing: dict[str, nn.Parameter] = {}
        for name, parameter in (trained := _trained(model)).items():
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                lambda _, name=name: self._arrived(name, trained)
            )

    def begin_step(self, batches: int) -> None:
        """Send the gradients of the step to come with the last of so many batches."""
        self._accumulate = batches

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Return the model's output. Whether its backward pass sends is decided here."""
        # Without a gradient yet, a step begins: so a forward pass that was no part of one, or a
        # step that was broken off, does not put the ranks out of step for good.
        if next(iter(_trained(self).values())).grad is None:
            self._batches = 0
        self._batches += self.training and torch.is_grad_enabled()  # an evaluation sends nothing
        self._sends = self._batches % self._accumulate == 0
        with nullcontext() if self._sends else self.no_sync():
            return super().forward(*inputs, **named)  # type: ignore[no-untyped-call]

    def _arrived(self, name: str, trained: dict[str, nn.Parameter]) -> None:
        """Note a gradient. With the first one of a pass that sends, wait for the pass to end."""
        if not self._missing and self._sends:
            self._missing = dict(trained)
            Variable._execution_engine.queue_callback(self._check_all_came)
        self._missing.pop(name, None)

    def _check_all_came(self) -> None:
        """Refuse a step in which a parameter took no part: torch would not send all gradients.

        It says so in the next step only, by numbers of parameters; after the last one, never.
        """
        missing, self._missing, self._sends = self._missing, {}, False
        if missing:
            raise RuntimeError(
                f"these parameters took no part in the loss: {', '.join(missing)}; freeze them "
                "(requires_grad_(False)), or do without data_parallel and call average_coalesced "
                "after backward, for which a missing gradient is zero"
            )


def data_parallel(
    model: nn.Module,
    *,
    accumulate: int = 1,
    bucket_mib: float = 25.0,
    meter: NetworkMeter | None = None,
) -> Accumulating:
    """Return `model` wrapped so that backward leaves the mean of all ranks' gradients.

    All ranks start from rank 0's weights and buffers. After that each rank keeps its own buffers
    (batch norm's statistics); torch's default would send rank 0's round before every step. Save
    `wrapped.module`, of rank 0.

    Args:
        model: on its device. All its parameters must take part in every loss.
        accumulate: as given to `train`: gradients are sent once for so many batches.
        bucket_mib: bytes a message, in MiB. Small buckets start earlier and cost more latency.
        meter: counts what is sent and waited for.

    Raises:
        ValueError: `accumulate` or `bucket_mib` out of range.
    """
    check_positive_int("accumulate", accumulate)
    check_number("bucket_mib", bucket_mib)
    device = next(iter(_trained(model).values())).device
    place()
    wrapped = Accumulating(
        model,
        accumulate,
        device_ids=[device.index] if device.type == "cuda" else None,
        bucket_cap_mb=bucket_mib,
        gradient_as_bucket_view=True,  # gradients are written where they are sent from: no copy
        **{_SYNC_BUFFERS: False},
    )
    if meter is not None:
        wrapped.register_comm_hook(meter, NetworkMeter.hook)
    return wrapped


# torch 2.13 gave the argument a new name.
_NEW = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_SYNC_BUFFERS = "forward_sync_buffers" if _NEW else "broadcast_buffers"


class Shard:
    """One rank's part of each batch; made by `shard`."""

    def __init__(self, batches: EpochBatches, rank: int, size: int) -> None:
        self.batches, self.rank, self.size = batches, rank, size

    def __len__(self) -> int:
        """Return the number of batches in an epoch: as many on all ranks."""
        return len(self.batches)

    def set_epoch(self, epoch: int) -> None:
        """Choose which epoch the next iteration is."""
        self.batches.set_epoch(epoch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # All ranks draw the same order from the same seed, so nothing needs to be sent.
        for indices in self.batches.indices():
            yield self.batches.batch(indices.tensor_split(self.size)[self.rank])


def shard(batches: EpochBatches, rank: int, size: int) -> Shard:
    """Return this rank's part of each batch, so that all ranks together have the whole of it.

    Where the batch does not divide, the first ranks have one sample more (torch's
    DistributedSampler would use some samples twice instead). Only the last batch of an evaluation
    can be so small that a rank's part is empty.

    Args:
        batches: such as labkit's Batches, the same on all ranks; `batch_size` is that of all
            ranks together.
        rank: this one, from 0.
        size: number of ranks.

    Raises:
        ValueError: no such rank, or fewer samples in a batch than ranks.
    """
    check_positive_int("size", size)
    check_whole("rank", rank, 0, size - 1)
    if batches.batch_size < size:
        raise ValueError(f"batch_size {batches.batch_size} gives nothing to some of {size} ranks")
    return Shard(batches, rank, size)
