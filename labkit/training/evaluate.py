"""Accuracy on held-out data. Never part of a step's time."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the share of right answers (0 to 1) of `model` over `batches`.

    The model answers in evaluation mode and in fp32; it is given back in the mode it was in.

    Args:
        model: gives logits (batch, classes) for inputs of `batches`.
        batches: (inputs, labels int64 (batch,)), on the model's device.

    Raises:
        ValueError: `batches` is empty.
    """
    was_training = model.training
    model.eval()
    right = total = 0
    try:
        for inputs, labels in batches:
            right += int((model(inputs).argmax(dim=-1) == labels).sum())
            total += labels.numel()
    finally:
        model.train(was_training)
    if total == 0:
        raise ValueError("batches is empty: there is nothing to evaluate on")
    return right / total
