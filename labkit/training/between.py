"""What happens between two steps: generators around the steps.

Some techniques do their work after a step has changed the weights: averaging them, holding some at
zero, unfreezing a layer when its time has come. Each is a small frozen value; called with the
training and its steps, it takes every step, does its work, and passes the step on. So they stack,
a recipe can name them, and the loop knows none of them.

    thaw = unfreeze((("stem", 0.5),))  # the stem trains in the second half
    train(model, batches, optimizer, between=(thaw, average_weights(0.99)))

What one remembers from step to step stands in `training.memory(self)`, a dictionary that the
checkpoint saves. It is read again at every start, so that a resumed training goes on to the bit.
The seconds of this work are the step's, as its phase `between`.

Those that belong to a technique stand with it: masks and sparsity in `labkit.compression.prune`,
averages over ranks in `labkit.distributed`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from labkit.training.run import Training
from labkit.training.step import Step


@dataclass(frozen=True)
class average_weights:
    """Evaluate with an average of the weights that forgets: it is steadier than the last weights.

    After each step, average = decay x average + (1 - decay) x weights; `training.answering` is a
    model with that average. Batch norm's statistics are averaged along.

    Args:
        decay: what is kept of the average at each step, 0 to below 1. 1 / (1 - decay) steps count.

    Raises:
        ValueError: `decay` out of range.

    Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992;
    torch.optim.swa_utils does the work.
    """

    decay: float = 0.99

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must lie in 0 … 1 (1 excluded), got {self.decay!r}")

    def __call__(self, training: Training, steps: Iterator[Step]) -> Iterator[Step]:
        """Return the steps; the average goes on from where the training's memory has it."""
        memory = training.memory(self)
        averaged = AveragedModel(
            training.model,
            multi_avg_fn=get_ema_multi_avg_fn(self.decay),  # type: ignore[no-untyped-call]
            use_buffers=True,
        )
        if memory:
            averaged.load_state_dict(memory["average"])
        memory["average"] = averaged.state_dict()  # its tensors are the average's own
        training.answering = averaged.module
        return self._averaging(training.model, averaged, steps)

    @staticmethod
    def _averaging(
        model: nn.Module, averaged: AveragedModel, steps: Iterator[Step]
    ) -> Iterator[Step]:
        for step in steps:
            averaged.update_parameters(model)
            yield step


@dataclass(frozen=True)
class unfreeze:
    """Freeze parts of the model, and let each train from its own point of progress on.

    A frozen part gets no gradient, and where the first layers are frozen the backward pass ends
    early. Which parts are frozen follows from the progress alone, so nothing need be remembered.

    Args:
        at: pairs (name of a part, as in `model.named_modules()`; progress from which it trains,
            0 to 1, where more than 1 means never).

    Raises:
        ValueError: a progress below 0; while training: the model has no part of that name, or none
            is left to train.

    Source: Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", 2018,
    section 3.3.
    """

    at: tuple[tuple[str, float], ...]

    def __post_init__(self) -> None:
        for name, when in self.at:
            if not when >= 0:
                raise ValueError(f"at must hold numbers from 0 up, got {when!r} for {name!r}")

    def __call__(self, training: Training, steps: Iterator[Step]) -> Iterator[Step]:
        """Yield the steps; a part is thawed before the first step of its time."""
        parts = [(_part(training.model, name), when) for name, when in self.at]
        # What was frozen before stays so; and all are given back as they were.
        held = [(p, p.requires_grad, when) for part, when in parts for p in part.parameters()]
        try:
            _thaw(held, training.progress)
            if not any(p.requires_grad for p in training.model.parameters()):
                raise ValueError("unfreeze(at) freezes all of the model: nothing is left to train")
            for step in steps:
                _thaw(held, training.progress)
                yield step
        finally:
            for parameter, trained, _ in held:
                parameter.requires_grad_(trained)


def _thaw(held: Sequence[tuple[nn.Parameter, bool, float]], progress: float) -> None:
    for parameter, trained, when in held:
        parameter.requires_grad_(trained and progress >= when)


def _part(model: nn.Module, name: str) -> nn.Module:
    parts: dict[str, nn.Module] = dict(model.named_modules())
    if name not in parts:
        known = ", ".join(name for name in parts if name)
        raise ValueError(f"unfreeze(at) names {name!r}, but the model's parts are: {known}")
    return parts[name]
