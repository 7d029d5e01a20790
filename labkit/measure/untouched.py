"""Measure a model without leaving a trace in it.

A forward pass in training mode moves the running statistics of batch norm and draws random
numbers for dropout. A measurement that did so would change the training that follows it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from labkit import seeds
from labkit.checks import explaining


@contextmanager
def untouched(model: nn.Module, *batch: object) -> Iterator[None]:
    """Restore the model's buffers and the global random generators after the block.

    Parameters and gradients are not guarded: the block must leave them alone itself.

    Args:
        model: runs in the block.
        batch: what it runs on; the error shows it if they do not fit.

    Raises:
        TypeError: `model` is not a module.
        ValueError: the block failed.
    """
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        with seeds.kept_rng(), explaining("a pass of the model", *batch):
            yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
