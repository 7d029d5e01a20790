"""Training: the loop and everything that changes the work of a step."""

from labkit.training import (
    checkpoint,
    watched,  # noqa: F401  (so that live() knows a Training)
)
from labkit.training.evaluate import evaluate
from labkit.training.loop import Training, train
from labkit.training.optimizers import SGD, AdamW
from labkit.training.precision import PRECISIONS, Precision, fast_precision
from labkit.training.recipe import Recipe
from labkit.training.schedules import Schedule, cosine, one_cycle
from labkit.training.step import Phases, Step

__all__ = [
    "PRECISIONS",
    "SGD",
    "AdamW",
    "Phases",
    "Precision",
    "Recipe",
    "Schedule",
    "Step",
    "Training",
    "checkpoint",
    "cosine",
    "evaluate",
    "fast_precision",
    "one_cycle",
    "train",
]
