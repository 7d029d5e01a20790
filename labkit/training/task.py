"""What is learned: a small value that the loop, the comparison and the ranks all ask.

A loop that calls `loss(model(inputs), labels)` knows classification and little else. A task says
the four things that anybody needs to know of what is learned: the loss of a batch, one score for
each example, how many targets the loss is a mean over, and what the mean score is called. With
those, the same loop trains a language model, and the same race compares two.

Why `weight`: gradients of small batches add up to those of a large one only if each is weighed by
what its mean was taken over. That is not the number of examples where targets are left out
(padding, masked words) or classes weigh differently. Why `score`: two models that answered the same
examples can be compared pair by pair, and know far more of their difference than of either.

A batch is whatever the task reads: any nesting of tuples, lists and dictionaries of tensors.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.checks import form
from labkit.data.masked import IGNORE
from labkit.models import next_token_loss

Batch: TypeAlias = Any


@dataclass(frozen=True)
class Metric:
    """What the mean of a task's scores is called, and how to read it.

    Attributes:
        name, unit: such as "accuracy" and "%".
        higher_is_better: whether more of it is better.
        scale: the mean score times this is the metric in its unit.
        low, high: the values that it can take, in its unit.
        margin: the smallest difference that matters, in `difference_unit`.
        difference_unit: of a difference of two: "points" of percentages.
        better, worse: what is said of a difference.
    """

    name: str
    unit: str
    higher_is_better: bool
    scale: float
    low: float
    high: float
    margin: float
    difference_unit: str
    better: str
    worse: str


ACCURACY = Metric(
    "accuracy", "%", True, 100.0, 0.0, 100.0, 0.1, "points", "more accurate", "less accurate"
)
LOSS = Metric("loss", "nats", False, 1.0, 0.0, math.inf, 0.01, "nats", "lower", "higher")


@runtime_checkable
class Task(Protocol):
    """What a training asks of what it learns."""

    @property
    def metric(self) -> Metric:
        """What the mean of all scores is."""

    def weight(self, batch: Batch) -> float:
        """Return how many targets, or how much of them, the mean loss of a batch is over."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean loss over the targets of a batch, a scalar."""

    def score(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return one number an example, float (examples,)."""


class Supervised:
    """What tasks share whose batches are (inputs, targets) and whose model answers with logits."""

    metric: ClassVar[Metric] = LOSS
    class_dimension: ClassVar[int | None] = -1
    """Of the outputs, if they are logits."""

    def outputs(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the model's answer to a batch, and the targets."""
        inputs, targets = pair(batch)
        return model(inputs), targets

    def target_weights(self, targets: Tensor) -> Tensor:
        """Return what each target weighs in the mean, as `targets`; 0 where it is ignored."""
        return (targets != IGNORE).float()

    def weight(self, batch: Batch) -> float:
        """Return the sum of the weights of the targets."""
        return float(self.target_weights(pair(batch)[1]).sum())

    def loss_of(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy of logits (…, classes) over the targets (…) that count."""
        return next_token_loss(outputs, targets)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean loss over the targets that count; not a number if there are none."""
        inputs, targets = pair(batch)
        return self.loss_of(model(inputs), targets)

    def score(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return one number an example."""
        raise NotImplementedError


@dataclass(frozen=True)
class classify(Supervised):
    """One class an example, or one a pixel: cross-entropy, scored by whether it is right.

    Logits are (batch, classes) or (batch, classes, …), targets int64 (batch,) or (batch, …). For
    training, targets may be shares of the classes, float as the logits (what mixing images gives).

    Args:
        label_smoothing: share of the target spread over all classes, 0 to below 1.
        class_weights: how much each class counts in the mean, or None for all alike.

    Raises:
        ValueError: a value out of range.

    Source: label smoothing after Szegedy et al., "Rethinking the Inception Architecture for
    Computer Vision", 2015, section 7.
    """

    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    metric: ClassVar[Metric] = ACCURACY
    class_dimension: ClassVar[int | None] = 1

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in 0 … 1, got {self.label_smoothing!r}")
        weights = self.class_weights
        if weights is not None and not (
            isinstance(weights, tuple) and all(0 <= weight < math.inf for weight in weights)
        ):
            raise ValueError(f"class_weights must be a tuple of numbers from 0 up, got {weights!r}")

    def target_weights(self, targets: Tensor) -> Tensor:
        """Return the weight of each target's class; shares of classes weigh 1 an example."""
        if targets.is_floating_point():
            return targets.new_ones(targets.select(1, 0).shape)
        counted = targets != IGNORE
        if self.class_weights is None:
            return counted.float()
        weights = _tensor(self.class_weights, targets.device)
        return weights[targets.where(counted, 0)] * counted

    def loss_of(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy over the targets."""
        weights = None
        if self.class_weights is not None:
            weights = _tensor(self.class_weights, outputs.device).to(outputs.dtype)
        return F.cross_entropy(
            outputs, targets, weight=weights, label_smoothing=self.label_smoothing
        )

    def score(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return 1 for a right answer and 0 for a wrong one, or the share of right pixels.

        Raises:
            ValueError: the logits do not fit the labels.
        """
        logits, labels = self.outputs(model, batch)
        fits = logits.dim() > 1 and (len(logits), *logits.shape[2:]) == tuple(labels.shape)
        if not fits or labels.is_floating_point():
            # Shapes that differ would broadcast, to an accuracy of 2,000 %.
            raise ValueError(
                "a model that classifies must answer with logits (batch, classes, …) for whole "
                f"labels (batch, …), got {form((logits, labels))}"
            )
        counted, classes = labels != IGNORE, logits.shape[1]
        if ((labels < 0) & counted).any() or (labels >= classes).any():
            raise ValueError(
                f"labels must lie in 0 … {classes - 1}, as the model answers with {classes} "
                f"logits, found {int(labels[counted].min())} … {int(labels.max())}"
            )
        return _example_means((logits.argmax(dim=1) == labels).float(), counted)


@dataclass(frozen=True)
class next_token(Supervised):
    """The next token at every place: cross-entropy in nats, one number a text.

    Logits are (batch, time, vocabulary), targets int64 (batch, time), IGNORE where padded.
    """

    def score(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean loss of each text, over its targets that count."""
        logits, targets = self.outputs(model, batch)
        losses = F.cross_entropy(
            logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORE, reduction="none"
        )
        return _example_means(losses.view_as(targets), targets != IGNORE)


@dataclass(frozen=True)
class fill_masks(next_token):
    """The tokens that were masked: cross-entropy over those places alone.

    As `next_token`, with IGNORE as the target of every place that was not masked, as
    `labkit.data.masked` delivers them.

    Source: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2019.
    """


@dataclass(frozen=True)
class supervised(Supervised):
    """A loss of your own over (inputs, targets), scored by itself, example by example.

    Args:
        function: (outputs, targets) -> mean loss over the examples, a scalar.
    """

    class_dimension: ClassVar[int | None] = None
    function: Callable[[Tensor, Tensor], Tensor]

    def target_weights(self, targets: Tensor) -> Tensor:
        """Return 1 for each example: nothing is known of what the function leaves out."""
        return torch.ones(len(targets), device=targets.device)

    def loss_of(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return what the function says."""
        return self.function(outputs, targets)

    def score(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of each example alone."""
        outputs, targets = self.outputs(model, batch)
        if not len(targets):
            return outputs.new_zeros(0)
        each = range(len(targets))
        return torch.stack([self.function(outputs[i : i + 1], targets[i : i + 1]) for i in each])


def check_task(task: Task) -> None:
    """Refuse the class of a task: it has all that a task has, and is none.

    Raises:
        TypeError: `task` is a class.
    """
    if isinstance(task, type):
        raise TypeError(f"task must be a task, such as classify(), got the class {task.__name__}")


PAIRS = (tuple, list)  # made once: it is asked at every step


def pair(batch: Batch) -> tuple[Any, Tensor]:
    """Return inputs and targets of a batch.

    Raises:
        TypeError: it is not a pair.
    """
    if not isinstance(batch, PAIRS) or len(batch) != 2 or not isinstance(batch[1], Tensor):
        raise TypeError(
            f"a batch must be a pair of tensors (inputs, labels), got {type(batch).__name__}; "
            "for another form, write a task that reads it"
        )
    return batch[0], batch[1]


def _example_means(scores: Tensor, counted: Tensor) -> Tensor:
    """Return the mean of each example's scores that count; an example without any is left out."""
    size = len(scores), math.prod(scores.shape[1:])  # also where a rank's part is empty
    scores, counted = scores.reshape(size), counted.reshape(size)
    number = counted.sum(1)
    return ((scores * counted).sum(1) / number)[number > 0]


@cache
def _tensor(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device)
