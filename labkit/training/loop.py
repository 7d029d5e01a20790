"""The training loop: one optimizer step after the other, yielded to whoever asks.

This is the loop that you would write, in the order in which you would write it: load, clear the
gradients, forward, backward, clip, step. It is a generator, so that the caller decides what happens
between two steps, and whether there is a next one.

The clock runs inside a step only: what you do between two steps costs the training nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from labkit.facts import synchronize
from labkit.training.precision import Precision
from labkit.training.schedules import lr_factor
from labkit.training.step import Step
from labkit.training.stream import EpochStream
from labkit.training.task import Batch, Task


@dataclass(eq=False)
class Loop:
    """All that a step needs, and how many are done; what each is, `train` says."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    task: Task
    stream: EpochStream
    schedule: Callable[[float], float] | None
    precision: Precision
    scaler: torch.amp.GradScaler | None
    accumulate: int
    clip: float | None
    augment: Callable[[Batch], Batch] | None
    device: torch.device
    clock: Callable[[], float]
    total: int
    index: int = 0


def steps(training: Loop) -> Iterator[Step]:
    """Yield a Step after each optimizer step until the training's `total` is reached.

    Raises:
        ValueError: no target of a step counts, or the data are empty.
        FloatingPointError: the loss is not finite.
    """
    model, optimizer, scaler = training.model, training.optimizer, training.scaler
    task, augment, accumulate = training.task, training.augment, training.accumulate
    device, clock = training.device, training.clock
    autocast, on_cpu = training.precision.autocast(device), device.type == "cpu"
    # Ranks that share a batch must know the weight of all of it: `distributed.joined_mean`.
    weighed = accumulate > 1 or hasattr(task, "total_weight")
    pending: Step | None = None
    batches = iter(training.stream)
    while training.index < training.total:
        if not model.training:
            model.train()
        lr = set_lr(training)

        start = clock()
        micro_batches = list(islice(batches, accumulate))
        if augment is not None:
            micro_batches = [augment(batch) for batch in micro_batches]
        shares = shares_of(training, micro_batches) if weighed else (1.0,)
        ready = loaded = clock()
        forward = backward = 0.0
        total_loss: Tensor | float = 0.0

        optimizer.zero_grad()
        for batch, share in zip(micro_batches, shares, strict=True):
            with autocast:
                loss = task.loss(model, batch)
            if weighed:  # so that gradients add up to those of one large batch
                loss = loss * share if share else nothing(model)
            if on_cpu:  # before backward, so that the weights stay whole
                value = loss.item()
                if not isfinite(value):
                    shares_of(training, micro_batches)  # says so if no target counts
                    raise not_finite(training, value, training.index, lr)
            total_loss = total_loss + (value if on_cpu else loss.detach())
            computed = clock()
            torch.autograd.backward(loss if scaler is None else scaler.scale(loss))
            done = clock()
            forward, backward = forward + computed - ready, backward + done - computed
            ready = done

        if training.clip is not None:
            if scaler is not None:
                scaler.unscale_(optimizer)
            clip_gradients(model, training.clip)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        phases = (loaded - start, forward, backward, clock() - ready)

        training.stream.commit()
        training.index += 1
        step = Step(training.index - 1, training.stream.epoch, total_loss, lr, phases)
        # An accelerator's loss is looked at one step late, so that nobody waits for it.
        if not on_cpu:
            pending = check_previous(training, pending, step)
        yield step


def timed(training: Loop, wrapped: Iterator[Step]) -> Iterator[Step]:
    """Yield the steps of generators around the loop, and add to each the time that they took."""
    while True:
        start = training.clock()
        step = next(wrapped, None)
        if step is None:
            return
        step.took_between(training.clock() - start - step.seconds)
        yield step


def set_lr(training: Loop) -> float:
    """Set the rate of every parameter group for the step to come; return the first group's."""
    groups = training.optimizer.param_groups
    if training.schedule is not None:
        factor = lr_factor(training.schedule, training.index, training.total)
        for group in groups:
            group["lr"] = group["initial_lr"] * factor
    return float(groups[0]["lr"])


def shares_of(training: Loop, batches: Sequence[Batch]) -> list[float]:
    """Return each batch's share of the step's mean, from what its own mean is taken over.

    Counted before the first forward pass: half-way through, nobody knows what a batch is a share
    of.

    Raises:
        ValueError: no target of the step counts.
    """
    task = training.task
    weights = [task.weight(batch) for batch in batches]
    total = sum(weights)
    if hasattr(task, "total_weight"):
        total = task.total_weight(total)
    if not total > 0:
        raise ValueError(f"no target counts in step {training.index}: all of them are ignored")
    return [weight / total for weight in weights]


def nothing(model: nn.Module) -> Tensor:
    """Return a loss of 0 that gives every parameter a gradient of 0.

    The mean over no targets is not a number. To leave the backward pass out would not do: other
    ranks wait for this one's gradients.
    """
    sums = [parameter.sum() for parameter in model.parameters() if parameter.requires_grad]
    return torch.stack(sums).sum() * 0


def clip_gradients(model: nn.Module, limit: float) -> Tensor:
    """Scale the gradients so that their joint norm is at most `limit`; return the norm before.

    Where ranks hold parts of a layer, all must find the norm of the whole. Such a module has a
    `joined_norm` for the gradients of its `parts()`; see `distributed.parallel.tensor`.
    """
    split: list[Any] = [module for module in model.modules() if hasattr(module, "joined_norm")]
    joined = {p: module.joined_norm for module in split for p in module.parts()}
    found: dict[Callable[..., Tensor], list[Tensor]] = {}
    for p in model.parameters():
        if p.grad is not None:
            found.setdefault(joined.get(p, nn.utils.get_total_norm), []).append(p.grad)
    norms = [norm_of(gradients) for norm_of, gradients in found.items()]
    norm = norms[0] if len(norms) == 1 else nn.utils.get_total_norm(norms)
    nn.utils.clip_grads_with_norm_(model.parameters(), limit, norm)
    return norm


def check_previous(training: Loop, previous: Step | None, step: Step) -> Step:
    """Return `step`, to be looked at later, once the one before it was seen to be finite.

    Raises:
        FloatingPointError: the previous loss is not finite, or that of the last step.
    """
    last = step if training.index == training.total else None
    for done in (previous, last):
        if done is not None and not isfinite(done.loss):
            raise not_finite(training, done.loss, done.index, done.lr)
    return step


def not_finite(training: Loop, loss: float, index: int, lr: float) -> FloatingPointError:
    """Return the error that says which step went wrong, and what to try."""
    return FloatingPointError(
        f"loss is {loss} at step {index} (lr {lr:.4g}, precision {training.precision.name}): "
        "lower the learning rate, clip gradients or check the data"
    )


def clock_of(device: torch.device, waits: bool) -> Callable[[], float]:
    """Return a clock in seconds; one that waits reads it when the device has done its work."""

    def synchronized() -> float:
        synchronize(device)
        return perf_counter()

    return synchronized if waits else perf_counter
