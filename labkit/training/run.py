"""A training under way, as an iterator of steps.

A trainer class hides the loop and asks for a callback wherever you want to look in. Here the loop
is yours: `train` yields after every step, and you print, plot, pause, time or stop between two.

    for step in train(model, batches, optimizer, schedule=cosine(), epochs=3):
        print(step.index, step.loss, step.lr, step.seconds)

Whatever changes the work of a step is an argument; whatever changes the model (data parallel,
masks, fake quantization) wraps the model; whatever changes the data wraps the batches; whatever is
done between two steps is a generator around them. So a new technique never edits the loop, which
stands in `labkit.training.loop`.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from labkit.checks import check_positive_int
from labkit.seeds import rng_state, set_rng_state
from labkit.training import loop
from labkit.training.loop import Loop
from labkit.training.precision import Precision, precision_policy
from labkit.training.same import fitted, optimizer_form
from labkit.training.step import Step
from labkit.training.stream import EpochStream, to_device
from labkit.training.task import Batch, Task, check_task, classify


@runtime_checkable
class Between(Protocol):
    """What is done between two steps; see `labkit.training.between`."""

    def __call__(self, training: "Training", steps: Iterator[Step]) -> Iterator[Step]:
        """Return the steps, with something done after each."""


@dataclass(eq=False)
class Training(Loop):
    """A training under way: iterate to go on, from wherever it stands. Made by `train`.

    Attributes:
        model: what is trained.
        answering: what to evaluate: the model, or an average of its weights.
        index: steps done.
        total: steps of the whole training.
    """

    between: tuple[Between, ...] = ()

    def __post_init__(self) -> None:
        self.answering = self.model
        self._memories: list[dict[str, Any]] = [{} for _ in self.between]
        if self.model.training:
            self.modes = [(part, part.training) for part in self.model.modules()]
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def __len__(self) -> int:
        return self.total

    @property
    def progress(self) -> float:
        """Share of the steps that are done, 0 to 1."""
        return self.index / self.total

    def memory(self, value: Between) -> dict[str, Any]:
        """Return what a `between` value remembers: tensors, numbers, texts, dictionaries of them.

        It is a part of the state, empty at first.

        Raises:
            ValueError: `value` is not one of this training's.
        """
        for mine, memory in zip(self.between, self._memories, strict=True):
            if mine is value:
                return memory
        raise ValueError(f"{value!r} is no `between` of this training")

    def __iter__(self) -> Iterator[Step]:
        """Yield a Step after each optimizer step until `total` is reached."""
        steps = loop.steps(self)
        for wrap in self.between:
            steps = wrap(self, steps)
        return loop.timed(self, steps) if self.between else steps

    def _between_kinds(self) -> list[str]:
        return [getattr(each, "__qualname__", type(each).__qualname__) for each in self.between]

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next step depends on: see `labkit.training.checkpoint`."""
        return {
            "index": self.index,
            "total": self.total,
            "precision": self.precision.name,
            "model": self.model.state_dict(),
            "optimizer_form": optimizer_form(self.optimizer),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "stream": self.stream.state_dict(),
            "between": [dict(memory) for memory in self._memories],
            "between_kinds": self._between_kinds(),
            "rng": rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state: the next step is the one that would have followed, to the bit.

        Raises:
            ValueError: the state is of another model, optimizer, length or precision, or not
                whole; nothing was changed.
        """
        mine, answering = self.state_dict(), self.answering
        state, before = fitted(state, mine), copy.deepcopy(mine)
        try:
            self._put(state)
            iter(self)  # what the memories hold takes effect now: `answering` may be an average
        except Exception as error:
            self._put(before)
            self.answering = answering
            raise ValueError(
                f"the checkpoint does not fit this training: {type(error).__name__}: {error}"
            ) from error

    def _put(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        self.stream.load_state_dict(state["stream"])
        self.index = state["index"]
        for memory, saved in zip(self._memories, state["between"], strict=True):
            memory.clear()
            memory.update(to_device(saved, self.device))
        set_rng_state(state["rng"])


def train(
    model: nn.Module,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    *,
    task: Task | None = None,
    schedule: Callable[[float], float] | None = None,
    precision: str | Precision = "fp32",
    accumulate: int = 1,
    clip: float | None = None,
    augment: Callable[[Batch], Batch] | None = None,
    between: Sequence[Between] = (),
    epochs: int | None = None,
    steps: int | None = None,
    timed: bool = False,
) -> Training:
    """Return a training to iterate over; nothing runs until you do.

    Args:
        model: any module with parameters; it stays on its device, batches are moved there.
        batches: any iterable of batches, in the form that the task reads, that can be iterated
            once an epoch.
        optimizer: over the model's parameters.
        task: what is learned; classification when left out. See `labkit.training.task`.
        schedule: progress (0 … 1) -> factor of the learning rate; see `schedules`.
        precision: "fp32", "bf16" or "fp16" (with loss scaling), or a `Precision` of your own.
        accumulate: batches whose gradients are added up for one step. A step ends with its epoch:
            the last one of an epoch takes the batches that are left.
        clip: largest norm of the gradient; None leaves it alone.
        augment: changes each batch on its device, such as flips; draws from the global generators.
        between: generators around the steps, the first one innermost; see `between`.
        epochs: passes over the data; 1 when neither `epochs` nor `steps` is given.
        steps: optimizer steps instead of epochs.
        timed: wait for an accelerator at every reading of the clock; a CPU needs no waiting.

    Raises:
        ValueError: an argument out of range, both lengths given, an optimizer of another model, or
            empty data; while iterating, what `loop.steps` raises.
        TypeError: `task` is none, or `batches` has no length and `steps` is not given.
        FloatingPointError: while iterating, when the loss or a gradient is not finite.
    """
    own = set(model.parameters())
    if not own:
        raise ValueError("model has no parameters: there is nothing to train")
    task = classify() if task is None else task
    check_task(task)
    held = (p for group in optimizer.param_groups for p in group["params"])
    if own.isdisjoint(getattr(p, "whole", p) for p in held):  # a rank may hold pieces: `Sharded`
        raise ValueError("optimizer has none of the model's parameters: it is another model's")
    check_positive_int("accumulate", accumulate)
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be a positive number, got {clip!r}")
    policy, device = precision_policy(precision), next(model.parameters()).device
    return Training(
        model=model,
        optimizer=optimizer,
        task=task,
        stream=EpochStream(batches, device),
        schedule=schedule,
        precision=policy,
        scaler=policy.scaler(device),
        accumulate=accumulate,
        clip=clip,
        augment=augment,
        device=device,
        clock=loop.clock_of(device, waits=timed),
        total=_total_steps(batches, epochs, steps, accumulate),
        between=tuple(between),
    )


def _total_steps(
    batches: Iterable[Batch], epochs: int | None, steps: int | None, accumulate: int
) -> int:
    if epochs is not None and steps is not None:
        raise ValueError(f"give epochs or steps, not both (got {epochs} and {steps})")
    if steps is not None:
        check_positive_int("steps", steps)
        return steps
    epochs = 1 if epochs is None else epochs
    check_positive_int("epochs", epochs)
    try:
        batches_an_epoch = len(batches)  # type: ignore[arg-type]
    except Exception as error:  # a DataLoader over a stream has a length that raises
        raise TypeError(
            "batches has no length, so epochs cannot be counted: give steps instead"
        ) from error
    if batches_an_epoch < accumulate:
        raise ValueError(
            f"batches is too short: an epoch of {batches_an_epoch} makes no step with "
            f"accumulate={accumulate}"
        )
    return epochs * -(-batches_an_epoch // accumulate)
