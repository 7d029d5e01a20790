"""The training loop, as an iterator of steps.

A trainer class hides the loop and asks for a callback wherever you want to look in. Here the loop
is yours: `train` yields after every step, and you print, plot, pause, time or stop between two.

    for step in train(model, batches, optimizer, schedule=cosine(), epochs=3):
        print(step.index, step.loss, step.lr, step.seconds)

Whatever changes the work of a step is an argument; whatever changes the model (data parallel,
masks, fake quantization) wraps the model; whatever changes the data wraps the batches. So a new
technique never edits this file.

The clock runs inside a step only: what you do between two steps costs the training nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import islice
from math import isfinite
from time import perf_counter
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.checks import check_positive_int
from labkit.facts import synchronize
from labkit.seeds import rng_state, set_rng_state
from labkit.training.precision import precision_policy
from labkit.training.schedules import lr_factor
from labkit.training.step import Step
from labkit.training.stream import Batch, EpochStream

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


class Training:
    """A training under way: iterate to go on, from wherever it stands. Made by `train`."""

    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[Batch],
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        schedule: Callable[[float], float] | None,
        precision: str,
        accumulate: int,
        clip: float | None,
        total: int,
        timed: bool,
    ) -> None:
        self.model, self.optimizer, self.loss, self.schedule = model, optimizer, loss, schedule
        self.accumulate, self.clip, self.total = accumulate, clip, total
        self.device = next(model.parameters()).device
        self.precision = precision_policy(precision)
        self.scaler = self.precision.scaler(self.device)
        self.stream = EpochStream(batches, self.device)
        self.index = 0
        self._clock = self._synchronized_clock if timed else perf_counter
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[Step]:
        """Yield a Step after each optimizer step until `total` is reached."""
        model, optimizer, scaler, clock = self.model, self.optimizer, self.scaler, self._clock
        autocast, on_cpu = self.precision.autocast(self.device), self.device.type == "cpu"
        pending: Step | None = None
        batches, accumulate = iter(self.stream), self.accumulate
        while self.index < self.total:
            if not model.training:
                model.train()
            lr = self._set_lr()

            start = clock()
            micro_batches = list(islice(batches, accumulate))
            ready = loaded = clock()
            forward = backward = 0.0
            total_loss: Tensor | float = 0.0

            optimizer.zero_grad()
            for inputs, labels in micro_batches:
                with autocast:
                    loss = self.loss(model(inputs), labels)
                if accumulate > 1:  # so that gradients add up to those of one large batch
                    loss = loss * (len(labels) / sum(len(y) for _, y in micro_batches))
                if on_cpu:  # before backward, so that the weights stay whole
                    value = loss.item()
                    if not isfinite(value):
                        raise self._not_finite(value, self.index, lr)
                total_loss = total_loss + (value if on_cpu else loss.detach())
                computed = clock()
                torch.autograd.backward(loss if scaler is None else scaler.scale(loss))
                done = clock()
                forward, backward = forward + computed - ready, backward + done - computed
                ready = done

            if self.clip is not None:
                if scaler is not None:
                    scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), self.clip)
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
                scaler.update()
            phases = (loaded - start, forward, backward, clock() - ready)

            self.stream.commit()
            self.index += 1
            step = Step(self.index - 1, self.stream.epoch, total_loss, lr, phases)
            # An accelerator's loss is looked at one step late, so that nobody waits for it.
            if not on_cpu:
                pending = self._check_previous(pending, step)
            yield step

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next step depends on: see `labkit.training.checkpoint`."""
        return {
            "index": self.index,
            "total": self.total,
            "precision": self.precision.name,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "stream": self.stream.state_dict(),
            "rng": rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state: the next step is the one that would have followed, to the bit.

        Raises:
            ValueError: the state is of another model, length or precision; nothing was changed.
        """
        _check_same_model(self.model.state_dict(), state["model"])
        for name, mine in (("total", self.total), ("precision", self.precision.name)):
            if state[name] != mine:
                raise ValueError(
                    f"the checkpoint's {name} is {state[name]!r}, this training's is {mine!r}"
                )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        self.stream.load_state_dict(state["stream"])
        self.index = state["index"]
        set_rng_state(state["rng"])

    def _set_lr(self) -> float:
        groups = self.optimizer.param_groups
        if self.schedule is not None:
            factor = lr_factor(self.schedule, self.index, self.total)
            for group in groups:
                group["lr"] = group["initial_lr"] * factor
        return float(groups[0]["lr"])

    def _check_previous(self, previous: Step | None, step: Step) -> Step:
        for done in (previous, step if self.index == self.total else None):
            if done is not None and not isfinite(done.loss):
                raise self._not_finite(done.loss, done.index, done.lr)
        return step

    def _not_finite(self, loss: float, index: int, lr: float) -> FloatingPointError:
        return FloatingPointError(
            f"loss is {loss} at step {index} (lr {lr:.4g}, precision {self.precision.name}): "
            "lower the learning rate, clip gradients or check the data"
        )

    def _synchronized_clock(self) -> float:
        synchronize(self.device)
        return perf_counter()


def train(
    model: nn.Module,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    *,
    loss: Loss = F.cross_entropy,
    schedule: Callable[[float], float] | None = None,
    precision: str = "fp32",
    accumulate: int = 1,
    clip: float | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    timed: bool = False,
) -> Training:
    """Return a training to iterate over; nothing runs until you do.

    Args:
        model: any module with parameters; it stays on its device, batches are moved there.
        batches: any iterable of (inputs, labels) that can be iterated once an epoch.
        optimizer: over the model's parameters.
        loss: (outputs, labels) -> mean loss, a scalar.
        schedule: progress (0 … 1) -> factor of the learning rate; see `schedules`.
        precision: "fp32", "bf16", "fp16" (with loss scaling) or "fp16-unscaled".
        accumulate: batches whose gradients are added up for one step.
        clip: largest norm of the gradient; None leaves it alone.
        epochs: passes over the data; 1 when neither `epochs` nor `steps` is given.
        steps: optimizer steps instead of epochs.
        timed: wait for an accelerator at every reading of the clock; a CPU needs no waiting.

    Raises:
        ValueError: an argument out of range, both lengths given, or empty data.
        TypeError: `batches` has no length and `steps` is not given.
        FloatingPointError: while iterating, when the loss is not finite.
    """
    if next(model.parameters(), None) is None:
        raise ValueError("model has no parameters: there is nothing to train")
    check_positive_int("accumulate", accumulate)
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be a positive number, got {clip!r}")
    return Training(
        model=model,
        batches=batches,
        optimizer=optimizer,
        loss=loss,
        schedule=schedule,
        precision=precision,
        accumulate=accumulate,
        clip=clip,
        total=_total_steps(batches, epochs, steps, accumulate),
        timed=timed,
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
    if not isinstance(batches, Sized):
        raise TypeError("batches has no length, so epochs cannot be counted: give steps instead")
    total = epochs * len(batches) // accumulate
    if total == 0:
        raise ValueError(
            f"batches is too short: {epochs} epoch(s) of {len(batches)} batches make no step "
            f"with accumulate={accumulate}"
        )
    return total


def _check_same_model(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    for name in [*mine, *theirs]:
        a, b = (tuple(s[name].shape) if name in s else "missing" for s in (mine, theirs))
        if a != b:
            raise ValueError(
                f"the checkpoint is of another model: {name} is {b} there and {a} here"
            )
