"""Network slimming: train so that whole channels switch themselves off.

A batch norm multiplies each channel by a scale that is learned. Add penalty x |scale| to the loss,
and the scales of channels that help little go to zero; such a channel is constant, and
`remove_lossless` takes it away without changing a single output. The price is paid in training: the
penalty also pulls at channels that do help.

    train(model, batches, optimizer, between=(shrink(0.02),))
    smaller = remove_lossless(model, images[:1]).model

Plain gradient steps on |scale| would jump to and fro across zero and never end there. So each step
moves every scale by lr x penalty towards zero and stops it there, which is the proximal step of
that penalty. For adaptive optimizers it is the decoupled form, as AdamW's is of weight decay.

Sources: Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", 2017;
Parikh and Boyd, "Proximal Algorithms", 2014, section 6.5.2, for the step.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from labkit.training.run import Training
from labkit.training.step import Step


@dataclass(frozen=True)
class shrink:
    """Pull every batch-norm scale towards zero, and stop it there: for `between`.

    Args:
        penalty: of each |scale| in the loss, 0 or more; a step takes lr x penalty off the scale.

    Raises:
        ValueError: a penalty out of range, or when training starts: no batch norm has scales.
    """

    penalty: float

    def __post_init__(self) -> None:
        if not self.penalty >= 0 or not isfinite(self.penalty):
            raise ValueError(f"penalty must be a number from 0 up, got {self.penalty!r}")

    def __call__(self, training: Training, steps: Iterator[Step]) -> Iterator[Step]:
        """Yield the steps; all that is changed is the model's own."""
        norms = (m for m in training.model.modules() if isinstance(m, _BatchNorm))
        scales = [norm.weight for norm in norms if norm.affine]
        if not scales:
            raise ValueError("shrink needs a model with batch norms that have scales: it has none")
        for step in steps:
            _towards_zero(scales, step.lr * self.penalty)
            yield step


@torch.no_grad()
def _towards_zero(scales: list[nn.Parameter], by: float) -> None:
    for scale in scales:
        scale.copy_(scale.sign() * (scale.abs() - by).clamp(min=0))
