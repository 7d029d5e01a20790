"""Pruning while it trains: hold weights at zero, or take more of them away little by little.

At 90 % sparsity a network that loses its weights at once loses much of what it knows, and training
on wins only part of it back. If the sparsity grows step by step, the weights that stay can take
over while there is still training to do. Which weights go is decided anew at each choice, so one
that was zero may come back as long as another is smaller.

    train(model, batches, optimizer, between=(grow(0.9),))

The weights are masked, not removed: no step gets faster (`masks` says what they are good for).

Source: Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model
compression", 2017.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from labkit.checks import check_positive_int
from labkit.compression.prune.masks import apply_masks, check_share, magnitude_masks
from labkit.training.run import Training
from labkit.training.step import Step


@dataclass(frozen=True)
class hold:
    """Keep masked weights at zero: for `between`.

    They are set to zero before the first step and after each one, so every forward pass sees zeros
    there, whatever momentum or weight decay make of them meanwhile.

    Args:
        masks: name of weight -> bool mask of its shape; False is held at zero.

    Raises:
        ValueError: when training starts: a mask fits no parameter of the model.
    """

    masks: Mapping[str, Tensor]

    def __call__(self, training: Training, steps: Iterator[Step]) -> Iterator[Step]:
        """Yield the steps; the masks never change, so nothing need be remembered."""
        _apply(training, self.masks)
        for step in steps:
            _apply(training, self.masks)
            yield step


@dataclass(frozen=True)
class grow:
    """Prune the smallest weights of all layers, more of them at each choice: for `between`.

    The sparsity follows `cubic_sparsity` from 0 to `final`; layers are ranked together.

    Args:
        final: sparsity at the end, 0 to 1.
        until: share of the training after which the sparsity stays, above 0 and up to 1.
        every: steps between two choices of masks; in between they are held.

    Raises:
        ValueError: a value out of range, or while training: a model without such weights.
    """

    final: float
    until: float = 0.7
    every: int = 10

    def __post_init__(self) -> None:
        check_share("final", self.final)
        check_share("until", self.until)
        if self.until == 0:
            raise ValueError("until must be above 0: the sparsity needs some steps to grow")
        check_positive_int("every", self.every)

    def __call__(self, training: Training, steps: Iterator[Step]) -> Iterator[Step]:
        """Yield the steps; the masks of the last choice stand in the training's memory."""
        memory = training.memory(self)
        for step in steps:
            # The last step always chooses, or the end of a short training would miss `final`.
            if step.index % self.every == 0 or training.progress == 1:
                wanted = cubic_sparsity(min(1.0, training.progress / self.until), self.final)
                memory["masks"] = magnitude_masks(training.model, wanted, together=True)
            _apply(training, memory["masks"])
            yield step


def _apply(training: Training, masks: Mapping[str, Tensor]) -> None:
    # An average of the weights, too: it remembers those that were there before their mask.
    for model in {training.model, training.answering}:
        apply_masks(model, masks)


def cubic_sparsity(progress: float, final: float, initial: float = 0.0) -> float:
    """Return the sparsity to have at `progress` (0 to 1) of a gradual pruning.

    Fast at first, when there is much to spare, slow towards the end:
    final + (initial - final) (1 - progress)^3.

    Raises:
        ValueError: an argument that is not between 0 and 1.
    """
    for name, value in (("progress", progress), ("final", final), ("initial", initial)):
        check_share(name, value)
    return final + (initial - final) * (1.0 - progress) ** 3
