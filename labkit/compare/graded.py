"""Ready models, compared on the test examples of a recipe: whose answers are better?

For models that were not trained side by side in a race: pruned at once, fine-tuned, rounded. All
answer the same examples, so each pair is compared example by example.
"""

from collections.abc import Mapping

from torch import nn

from labkit.compare.quantity import Quantity
from labkit.compare.samples import Samples
from labkit.training import Recipe


def graded(models: Mapping[str, nn.Module], recipe: Recipe) -> Samples:
    """Return the scores of models on the recipe's test examples; the first is the baseline.

    Args:
        models: {name: model, on the recipe's device}.
        recipe: whose data and task they are graded by.

    Raises:
        ValueError: no models, or one whose answers do not fit the task.
    """
    metric = Quantity.of(recipe.task.metric)
    samples = Samples(models, (metric,))
    for name, model in models.items():
        samples.add_scores(name, metric, recipe.scores(model))
    return samples
