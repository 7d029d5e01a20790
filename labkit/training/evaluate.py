"""Scores on held-out data. Never part of a step's time."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from labkit.checks import explaining
from labkit.training.task import Batch, Task, classify


@contextmanager
def evaluation_mode(*models: nn.Module) -> Iterator[None]:
    """Put models into evaluation mode; every part of them gets back the mode that it was in.

    `model.train()` at the end would wake up the batch norms that somebody froze on purpose.
    """
    modes = [(part, part.training) for model in models for part in model.modules()]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@torch.no_grad()
def scores(model: nn.Module, batches: Iterable[Batch], task: Task | None = None) -> Tensor:
    """Return one number an example of `batches`, float (examples,), on the CPU.

    The model answers in evaluation mode and in fp32, and is given back as it was.

    Args:
        model: on the device of the batches.
        batches: what the task reads.
        task: says what the number is; classification by default: 1 for a right answer, else 0.

    Raises:
        ValueError: `batches` is empty, or a batch, the task and the model's answers do not fit.
        FloatingPointError: a score is not finite.
    """
    task = classify() if task is None else task
    found: list[Tensor] = []
    with evaluation_mode(model):
        for number, batch in enumerate(batches):
            with explaining(f"the score of batch {number}", batch):
                found.append(task.score(model, batch).float().cpu())
    if not found:
        raise ValueError("batches is empty: there is nothing to evaluate on")
    together = torch.cat(found)
    if not together.isfinite().all():
        bad = int((~together.isfinite()).sum())
        raise FloatingPointError(f"{bad} of {len(together)} scores are not finite")
    return together


def evaluate(model: nn.Module, batches: Iterable[Batch], task: Task | None = None) -> float:
    """Return the mean score: the share of right answers (0 to 1), or the loss in nats.

    Arguments and errors as for `scores`.
    """
    return float(scores(model, batches, task).double().mean())
