"""Training: the loop and everything that changes the work of a step."""

from labkit.data.masked import IGNORE
from labkit.training import (
    checkpoint,
    watched,  # noqa: F401  (so that live() knows a Training)
)
from labkit.training.between import average_weights, unfreeze
from labkit.training.distillation import distill
from labkit.training.evaluate import evaluate, evaluation_mode, scores
from labkit.training.optimizers import SGD, AdamW, Optimizer
from labkit.training.precision import PRECISIONS, Precision, fast_precision
from labkit.training.recipe import Recipe
from labkit.training.run import Between, Training, train
from labkit.training.schedules import Schedule, cosine, one_cycle
from labkit.training.step import Phases, Step
from labkit.training.task import (
    Batch,
    Metric,
    Task,
    classify,
    fill_masks,
    next_token,
    supervised,
)

__all__ = [
    "IGNORE",
    "PRECISIONS",
    "SGD",
    "AdamW",
    "Batch",
    "Between",
    "Metric",
    "Optimizer",
    "Phases",
    "Precision",
    "Recipe",
    "Schedule",
    "Step",
    "Task",
    "Training",
    "average_weights",
    "checkpoint",
    "classify",
    "cosine",
    "distill",
    "evaluate",
    "evaluation_mode",
    "fast_precision",
    "fill_masks",
    "next_token",
    "one_cycle",
    "scores",
    "supervised",
    "train",
    "unfreeze",
]
