"""The training loop: one optimizer step after the other, yielded to whoever asks.

This is the loop that you would write, in the order in which you would write it: load, clear the
gradients, forward, backward, clip, step. It is a generator, so that the caller decides what happens
between two steps, and whether there is a next one.

The clock runs inside a step only: what you do between two steps costs the training nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from math import isfinite, nan
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from labkit.checks import explain, explaining
from labkit.facts import synchronize
from labkit.training.precision import Precision
from labkit.training.schedules import lr_factor
from labkit.training.shares import Joined, nothing, shares
from labkit.training.sound import bad_gradient, check_loss, not_finite
from labkit.training.step import Step
from labkit.training.stream import EpochStream
from labkit.training.task import Batch, Task

LEAST_SCALE = 2.0**-24
"""Of a loss: gradients that still overflow are none of the format's doing."""
LOSS_ADVICE = "lower the learning rate, clip gradients or check the data"
GRADIENT_ADVICE = "look for a root, a norm or a logarithm of 0, or a division by it"


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
    modes: list[tuple[nn.Module, bool]] = field(default_factory=list)


def steps(training: Loop) -> Iterator[Step]:
    """Yield a Step after each optimizer step until the training's `total` is reached.

    Raises:
        ValueError: no target of a step counts, the data are empty, or model, task and batch do not
            fit each other.
        FloatingPointError: the loss or a gradient is not finite; the weights stay as they were.
    """
    model, optimizer, scaler = training.model, training.optimizer, training.scaler
    task, augment, accumulate = training.task, training.augment, training.accumulate
    device, clock = training.device, training.clock
    autocast, on_cpu = training.precision.autocast(device), device.type == "cpu"
    # Ranks that share a batch must know the weight of all of it: `distributed.joined_mean`.
    weighed = accumulate > 1 or isinstance(task, Joined)
    # A model that sends its gradients asks with which batch of the step: `data_parallel`.
    begin_step = getattr(model, "begin_step", None)
    clip = getattr(optimizer, "clip_gradients", partial(clip_gradients, model))  # see `Sharded`
    parts = list(model.modules())
    windows = training.stream.windows(accumulate)
    while training.index < training.total:
        wake(training)
        lr = set_lr(training)

        start = clock()
        micro_batches = next(windows)
        if augment is not None:
            micro_batches = [augment(batch) for batch in micro_batches]
        weights = shares_of(training, micro_batches) if weighed else [1.0]
        if begin_step is not None:
            begin_step(len(micro_batches))
        ready = loaded = clock()
        forward = backward = 0.0
        total_loss: Tensor | float = 0.0

        optimizer.zero_grad()
        for batch, share in zip(micro_batches, weights, strict=True):
            try:
                with autocast:
                    loss = task.loss(model, batch)
                check_loss(loss)
            except Exception as error:
                explain(error, f"step {training.index}", batch)
            if weighed:  # so that gradients add up to those of one large batch
                loss = loss * share if share else nothing(model)
            if on_cpu:  # before backward: what is not finite there need not be computed
                value = loss.item()
                if not isfinite(value):
                    shares_of(training, micro_batches)  # says so if no target counts
                    raise not_finite(training, "loss", value, lr, LOSS_ADVICE)
            total_loss = total_loss + (value if on_cpu else loss.detach())
            computed = clock()
            torch.autograd.backward(loss if scaler is None else scaler.scale(loss))
            done = clock()
            forward, backward = forward + computed - ready, backward + done - computed
            ready = done

        mean = float(total_loss)
        if not isfinite(mean):
            raise not_finite(training, "loss", mean, lr, LOSS_ADVICE)
        if scaler is None and (name := bad_gradient(model, optimizer)):
            raise not_finite(training, f"gradient of {name}", nan, lr, GRADIENT_ADVICE)
        if training.clip is not None:
            if scaler is not None:
                scaler.unscale_(optimizer)
            norm = float(clip(training.clip))
            if scaler is None and not isfinite(norm):  # of finite numbers: their squares overflow
                raise not_finite(training, "norm of the gradient", norm, lr, LOSS_ADVICE)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)  # leaves the step out where a gradient is not finite
            scaler.update()
            if (scale := scaler.get_scale()) < LEAST_SCALE:
                raise not_finite(training, f"gradient, scaled by {scale}", nan, lr, GRADIENT_ADVICE)
        phases = (loaded - start, forward, backward, clock() - ready)

        training.stream.commit()
        training.index += 1
        training.modes = [(part, part.training) for part in parts]
        yield Step(training.index - 1, training.stream.epoch, mean, lr, phases)


def shares_of(training: Loop, batches: list[Batch]) -> list[float]:
    """Return each batch's share of the step's mean; see `labkit.training.shares`."""
    step = f"step {training.index}"
    with explaining(step, *batches):
        return shares(training.task, batches, step)


def wake(training: Loop) -> None:
    """Put the model into training mode if it is not: each part into that which it trained in last.

    `model.train()` alone would wake up the batch norms that somebody froze on purpose.
    """
    if not training.model.training:
        training.model.train()
        for part, mode in training.modes:
            part.training = mode


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


def clock_of(device: torch.device, waits: bool) -> Callable[[], float]:
    """Return a clock in seconds; one that waits reads it when the device has done its work."""

    def synchronized() -> float:
        synchronize(device)
        return perf_counter()

    return synchronized if waits else perf_counter
