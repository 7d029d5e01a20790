"""Pipeline parallelism: each rank has a stage of the model, and hands activations to the next.

What a rank needs of the others is little: the activations at one cut, forward, and their gradient,
backward. So it is the split for slow links between machines, while tensor parallelism, which talks
inside each layer, wants fast ones. Its price is the bubble: see `labkit.plan.pipeline_schedules`.

With one piece of the batch, one rank computes and all others wait. So `Pipeline` cuts it into
microbatches, runs a schedule of `torch.distributed.pipelining`, and notes when each pass started
and ended. It gives the loss and the gradients of one process on the whole batch, if no layer mixes
the examples. BatchNorm in training mode does: its statistics are those of a microbatch. There, use
`eval()`, or a norm over features.

Source: Huang et al., "GPipe: efficient training of giant neural networks using pipeline
parallelism", 2019.
"""

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from labkit.distributed.launcher.world import place
from labkit.facts import synchronize
from labkit.plan.pipeline_schedules import Block, Kind, in_flight
from labkit.training import Batch, Task
from labkit.training.shares import shares
from labkit.training.task import check_task, pair

if TYPE_CHECKING:
    from torch.distributed.pipelining import PipelineStage


class Answer(nn.Module):
    """Stands for a model whose answer is there already: the last stage's, which a task asks for."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, *_: Any) -> Tensor:
        """Return the answer, whatever the inputs."""
        return self.outputs


class Pipeline:
    """Train a model that lies in stages on all ranks: `loss = pipeline.step(batch)`.

    Args:
        stage: this rank's part of the model; see `stages.pipeline_stage`.
        task: what is learned, such as `next_token()`; the last rank asks it.
        microbatches: into how many equal pieces each batch is cut.
        kind: "GPipe" or "1F1B"; see `labkit.plan.pipeline_schedules`.

    Attributes:
        blocks: this rank's passes of the last step; times are those of `time.perf_counter`.

    Raises:
        ValueError: `kind` is unknown, or 1F1B would have fewer microbatches than stages.
        TypeError: `stage` is not a module, or `task` not a task.
    """

    def __init__(
        self, stage: nn.Module, task: Task, microbatches: int, kind: Kind = "1F1B"
    ) -> None:
        # Here, not at the top: this brings torch's tracer along.
        from torch.distributed.pipelining import Schedule1F1B, ScheduleGPipe

        check_task(task)
        rank, size = place()
        in_flight(kind, size, microbatches, rank)  # checks them
        if kind == "1F1B" and microbatches < size:
            raise ValueError(
                f"microbatches must be at least {size}, one a stage, for 1F1B, got "
                f"{microbatches}; GPipe takes fewer"
            )
        self.blocks: list[Block] = []
        self._task, self._microbatches = task, microbatches
        self._shape: torch.Size | None = None
        self._pieces: list[tuple[float, Batch]] = []  # share of the loss, microbatch
        self._device = next((p.device for p in stage.parameters()), torch.device("cpu"))
        self._stage = _noting_stage(stage, rank, size, self._device, self.blocks)
        scheduler = ScheduleGPipe if kind == "GPipe" else Schedule1F1B
        # torch would divide all of `.grad` by the microbatches after the last one, gradients of
        # earlier steps included. Here each loss has its share before its backward pass.
        self._schedule = scheduler(self._stage, microbatches, self._loss, scale_grads=False)

    def step(self, batch: Batch) -> Tensor:
        """Add the gradients of a batch to `.grad`; return its loss, on all ranks.

        Each microbatch has the weight that the task gives it. So it does not matter how targets
        that do not count lie in the batch.

        Args:
            batch: (inputs, targets), the same on all ranks, in each step of the same shape. The
                first rank uses the inputs, the last one the targets.

        Raises:
            ValueError: the batch cannot be cut into equal microbatches, has another shape than that
                of the first step, for which the ranks have made ready, or no target counts.
        """
        inputs, targets = pair(batch)
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
        self._pieces = self._cut(inputs, targets)
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

    def _cut(self, inputs: Tensor, targets: Tensor) -> list[tuple[float, Batch]]:
        """Return the microbatches, each after its share of the loss."""
        count = self._microbatches
        pieces = list(zip(inputs.chunk(count), targets.chunk(count), strict=True))
        # All ranks find out if none counts: one that raised alone would leave the others waiting.
        return list(zip(shares(self._task, pieces, "the batch"), pieces, strict=True))

    def _loss(self, outputs: Tensor, _: Tensor) -> Tensor:
        """Return a microbatch's share of the loss; its time belongs to the forward pass.

        torch hands over its own piece of the targets. The whole piece of the batch is looked up
        instead, by the pass that has just been noted, because a task may read more than targets.
        """
        noted = bool(self.blocks)  # not in torch's trial run, before the first step
        share, piece = self._pieces[self.blocks[-1].microbatch if noted else 0]
        # A mean over no targets is not a number, and 0 times that is none either.
        loss = self._task.loss(Answer(outputs), piece) * share if share else outputs.sum() * 0
        if noted:
            self.blocks[-1] = self.blocks[-1]._replace(end=_now(self._device))
        return loss


def _noting_stage(
    module: nn.Module, rank: int, size: int, device: torch.device, blocks: list[Block]
) -> "PipelineStage":
    """Return torch's stage, which also adds each of its passes to `blocks`."""
    from torch.distributed.pipelining import PipelineStage

    def note(letter: str, run: Callable[..., Any], number: int, *rest: Any, **options: Any) -> Any:
        start = perf_counter()
        result = run(number, *rest, **options)
        blocks.append(Block(rank, start, _now(device), letter, number))
        return result

    class NotingStage(PipelineStage):
        def forward_one_chunk(self, *arguments: Any, **options: Any) -> Any:
            return note("F", super().forward_one_chunk, *arguments, **options)

        def backward_one_chunk(self, *arguments: Any, **options: Any) -> Any:
            return note("B", super().backward_one_chunk, *arguments, **options)

    return NotingStage(module, rank, size, device)


def _now(device: torch.device) -> float:
    synchronize(device)  # a GPU works on after the call
    return perf_counter()


def _from_last(loss: Tensor) -> Tensor:
    """Return the last rank's loss on all ranks."""
    loss = loss.detach()
    dist.broadcast(loss, dist.get_world_size() - 1)
    return loss
