"""A look ahead: how long a training of a recipe will take here."""

from functools import partial

import torch

from labkit.measure.timing import seconds_of
from labkit.training import Recipe
from labkit.training.evaluate import evaluation_mode

STEPS = 4


def seconds_of_a_training(recipe: Recipe, evaluations: int) -> float:
    """Return the seconds of one training with so many evaluations, roughly.

    A few steps of a throw-away model are timed, and one batch of its evaluation.
    """
    training = recipe.training(timed=True)
    steps = iter(training)
    seconds = min(next(steps).seconds for _ in range(min(STEPS, len(training))))
    batches = recipe.test_batches()
    batch = next(iter(batches))
    with torch.no_grad(), evaluation_mode(training.answering):
        recipe.task.score(training.answering, batch)  # the first one builds kernels
        score = partial(recipe.task.score, training.answering, batch)
        evaluation = seconds_of(score, training.device) * len(batches)
    return len(training) * seconds + evaluations * evaluation
