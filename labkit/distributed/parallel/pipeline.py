"""Pipeline parallelism: each rank has a stage of the model, and hands activations to the next.

What a rank needs of the others is little: the activations at one cut, forward, and their gradient,
backward. So it is the split for slow links between machines, while tensor parallelism, which talks
inside each layer, wants fast ones. Its price is the bubble: see `labkit.plan.pipeline_schedules`.

`naive_step` is the idea in ten lines: one rank computes, all others wait. `Pipeline` cuts the batch
into microbatches, runs a schedule of `torch.distributed.pipelining`, and notes when each pass
started and ended. Both give the loss and the gradients of one process on the whole batch, if the
loss is a mean over samples and no layer mixes them. BatchNorm in training mode does: its
statistics are those of a microbatch. There, use `eval()`, or a norm over features.

Source: Huang et al., "GPipe: efficient training of giant neural networks using pipeline
parallelism", 2019.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from labkit.facts import synchronize
from labkit.plan.pipeline_schedules import Block, Kind, in_flight

Loss = Callable[[Tensor, Tensor], Tensor]


def naive_step(stage: nn.Module, inputs: Tensor, targets: Tensor, loss_function: Loss) -> Tensor:
    """Add the gradients of a batch to `.grad`, one rank after the other; return the loss.

    Args:
        stage: this rank's part of the model; what it returns must be float32.
        inputs: of the whole model; the first rank uses them.
        targets: the last rank uses them.
        loss_function: called as `loss_function(outputs, targets)`.

    Returns:
        The loss, on all ranks.
    """
    rank, last = dist.get_rank(), dist.get_world_size() - 1
    arrived = inputs if rank == 0 else _receive(rank - 1, inputs.device).requires_grad_()
    outputs = stage(arrived)
    if rank == last:
        loss = loss_function(outputs, targets)
        torch.autograd.backward(loss)
    else:
        loss = outputs.new_empty(())
        _send(outputs.detach(), rank + 1)
        torch.autograd.backward(outputs, _receive(rank + 1, inputs.device))
    if arrived.grad is not None:
        _send(arrived.grad, rank - 1)
    return _from_last(loss)


class Pipeline:
    """Train a model that lies in stages on all ranks: `loss = pipeline.step(inputs, targets)`.

    Args:
        stage: this rank's part of the model; see `stages.pipeline_stage`.
        loss_function: called as `loss_function(outputs, targets)` on the last rank; a mean.
        microbatches: into how many equal pieces each batch is cut.
        kind: "GPipe" or "1F1B"; see `labkit.plan.pipeline_schedules`.

    Attributes:
        blocks: this rank's passes of the last step; times are those of `time.perf_counter`.

    Raises:
        ValueError: `kind` is unknown, or 1F1B would have fewer microbatches than stages.
        TypeError: `stage` is not a module.
    """

    def __init__(
        self, stage: nn.Module, loss_function: Loss, microbatches: int, kind: Kind = "1F1B"
    ) -> None:
        # Here, not at the top: this brings torch's tracer along.
        from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

        if not isinstance(stage, nn.Module):
            raise TypeError(f"stage must be a torch module, got {type(stage).__name__}")
        self._rank, size = dist.get_rank(), dist.get_world_size()
        in_flight(kind, size, microbatches, self._rank)  # checks them
        if kind == "1F1B" and microbatches < size:
            raise ValueError(
                f"microbatches must be at least {size}, one a stage, for 1F1B, got "
                f"{microbatches}; GPipe takes fewer"
            )
        self.blocks: list[Block] = []
        self._shape: torch.Size | None = None
        self._loss_function, self._microbatches = loss_function, microbatches
        self._device = next((p.device for p in stage.parameters()), torch.device("cpu"))
        self._stage = PipelineStage(stage, self._rank, size, self._device)
        for name, letter in (("forward_one_chunk", "F"), ("backward_one_chunk", "B")):
            setattr(self._stage, name, self._noted(getattr(self._stage, name), letter))
        scheduler = ScheduleGPipe if kind == "GPipe" else Schedule1F1B
        # The loss is divided, not the gradients: those of an earlier step may be there already.
        self._schedule = scheduler(self._stage, microbatches, self._loss, scale_grads=False)

    def step(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Add the gradients of a batch to `.grad`; return its loss, on all ranks.

        Args:
            inputs: batch first, the same shape in each step; the first rank uses them.
            targets: batch first; the last rank uses them.

        Raises:
            ValueError: the batch cannot be cut into equal microbatches, or has another shape than
                that of the first step, for which the ranks have made ready.
        """
        if len(inputs) % self._microbatches or len(inputs) != len(targets):
            raise ValueError(
                f"inputs and targets must be equally many, a multiple of "
                f"{self._microbatches} microbatches, got {len(inputs)} and {len(targets)}"
            )
        self._shape = inputs.shape if self._shape is None else self._shape
        if inputs.shape != self._shape:
            raise ValueError(
                f"inputs must have the shape of the first step, {tuple(self._shape)}, got "
                f"{tuple(inputs.shape)}"
            )
        self.blocks.clear()
        losses: list[Tensor] = []
        first = (inputs,) if self._stage.is_first else ()
        last: dict[str, Any] = {}
        if self._stage.is_last:
            last = {"target": targets, "losses": losses}
        self._schedule.step(*first, **last, return_outputs=False)
        loss = torch.stack(losses).sum() if losses else torch.empty((), device=self._device)
        return _from_last(loss)

    def timeline(self) -> list[Block]:
        """Return the passes of all ranks in the last step, in seconds from the first start.

        All ranks call it. Processes of one machine share the clock: on Linux, perf_counter counts
        from the start of the machine. Those of different machines do not.
        """
        everyones: list[list[Block]] = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(everyones, self.blocks)
        blocks = [block for blocks in everyones for block in blocks]
        zero = min((block.start for block in blocks), default=0.0)
        moved = [b._replace(start=b.start - zero, end=b.end - zero) for b in blocks]
        return sorted(moved, key=lambda block: (block.start, block.rank))

    def _noted(self, function: Callable[..., Any], letter: str) -> Callable[..., Any]:
        """Return `function`, a pass of torch's stage, so that it adds to `blocks`."""

        def noted(microbatch: int, *arguments: Any, **options: Any) -> Any:
            start = perf_counter()
            result = function(microbatch, *arguments, **options)
            self.blocks.append(Block(self._rank, start, self._now(), letter, microbatch))
            return result

        return noted

    def _loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute a microbatch's share of the loss; its time belongs to the forward pass."""
        loss = self._loss_function(outputs, targets) / self._microbatches
        if self.blocks:  # not in torch's trial run before the first step
            self.blocks[-1] = self.blocks[-1]._replace(end=self._now())
        return loss

    def _now(self) -> float:
        synchronize(self._device)  # a GPU works on after the call
        return perf_counter()


def _from_last(loss: Tensor) -> Tensor:
    """Return the last rank's loss on all ranks."""
    loss = loss.detach()
    dist.broadcast(loss, dist.get_world_size() - 1)
    return loss


def _send(tensor: Tensor, rank: int) -> None:
    """Send a tensor after its shape."""
    shape = torch.tensor([tensor.dim(), *tensor.shape], device=tensor.device)
    dist.send(shape[:1], rank)
    dist.send(shape[1:], rank)
    dist.send(tensor.contiguous(), rank)


def _receive(rank: int, device: torch.device) -> Tensor:
    dimensions = torch.empty(1, dtype=torch.int64, device=device)
    dist.recv(dimensions, rank)
    shape = torch.empty(int(dimensions), dtype=torch.int64, device=device)
    dist.recv(shape, rank)
    tensor = torch.empty(shape.tolist(), device=device)
    dist.recv(tensor, rank)
    return tensor
