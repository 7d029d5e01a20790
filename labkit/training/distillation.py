"""Learn from a teacher: its answers say more than labels do.

A label says "shirt". A trained network says "shirt, rather likely a coat, never a sandal", and what
it says of the wrong classes is what it knows of how they are alike. A small student that learns
from these answers often ends better than one that sees the labels alone, for one forward pass of
the teacher more a step. It is a task like others, so it can be raced against the same student
trained as long without the teacher: that is the fair baseline.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from labkit.training.task import Batch, Metric, Supervised


@dataclass(frozen=True)
class distill:
    """A task learned from its targets and from a teacher's answers.

    The loss is (1 - share) x the task's own + share x the cross-entropy between the softened
    answers of teacher and student. Softening divides logits by the temperature, so that what the
    teacher thinks of the wrong classes counts, too; the square of the temperature keeps the size of
    the gradient.

    Args:
        task: such as `classify()` or `next_token()`.
        teacher: in evaluation mode, on the device of the batches; answers as the student does.
        share: of the teacher's part in the loss, 0 to 1.
        temperature: above 0.

    Raises:
        ValueError: a value out of range, or a teacher in training mode.
        TypeError: a task without logits, or a teacher that is no module.

    Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015.
    """

    task: Supervised
    teacher: nn.Module
    share: float = 0.5
    temperature: float = 2.0

    def __post_init__(self) -> None:
        if self.task.class_dimension is None:
            raise TypeError(f"task must be one whose model answers with logits, got {self.task!r}")
        if self.teacher.training:
            raise ValueError("teacher must be in evaluation mode: call teacher.eval()")
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must lie in 0 … 1, got {self.share!r}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be a positive number, got {self.temperature!r}")

    @property
    def metric(self) -> Metric:
        """The task's own."""
        return self.task.metric

    def weight(self, batch: Batch) -> float:
        """Return what the task's own loss is a mean over; the teacher's part is so, too."""
        return self.task.weight(batch)

    def score(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the task's own scores: the teacher takes no part."""
        return self.task.score(model, batch)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the joint loss over the targets that count."""
        outputs, targets = self.task.outputs(model, batch)
        with torch.no_grad():
            wanted, _ = self.task.outputs(self.teacher, batch)
        weights = self.task.target_weights(targets)
        classes, t = self.task.class_dimension, self.temperature
        assert classes is not None  # refused when it was made
        gap = -(wanted / t).softmax(classes) * (outputs / t).log_softmax(classes)
        taught = (gap.sum(classes) * weights).sum() / weights.sum() * t**2
        return (1 - self.share) * self.task.loss_of(outputs, targets) + self.share * taught
