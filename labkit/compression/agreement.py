"""How far apart are two models' answers, or a tensor and what rounding made of it?

A smaller model that should be the same function is held against the largest difference of an
output. One that cannot be the same is asked how loud its error is: as a share of the length of the
answer, or in decibels, 20 log10(length of the answer / length of the error). 20 dB is an error of a
tenth, 40 dB of a hundredth; one bit more halves the steps of a grid, which is worth 6 dB.
"""

import math

import torch
from torch import Tensor, nn

from labkit.training.evaluate import evaluation_mode


@torch.no_grad()
def largest_difference(model: nn.Module, other: nn.Module, inputs: Tensor) -> float:
    """Return the largest difference of an output, both models in evaluation mode."""
    with evaluation_mode(model, other):
        return float((model(inputs) - other(inputs)).abs().max())


def distance(exact: Tensor, approximate: Tensor) -> float:
    """Return the length of the error, as a share of the length of `exact`."""
    return _length(approximate, exact) / _length(exact)


def decibels(exact: Tensor, approximate: Tensor) -> float:
    """Return how loud `exact` is against the error; infinite without one."""
    return in_decibels(_length(exact) ** 2, _length(approximate, exact) ** 2)


def in_decibels(signal: float, noise: float) -> float:
    """Return 10 log10(signal / noise) of two energies, which are sums of squares."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _length(values: Tensor, minus: Tensor | None = None) -> float:
    values = values.detach().double()  # the difference of two long float32 vectors is mostly noise
    return float((values if minus is None else values - minus.detach().double()).norm())
