"""Ready models are graded on the same examples, pair by pair."""

import pytest
from support.common import tiny_recipe

from labkit.compare import graded


def test_scores_are_the_recipes_own_and_compared_example_by_example() -> None:
    recipe = tiny_recipe()
    models = {"new": recipe.training().model, "trained": recipe.trained()}
    samples = graded(models, recipe)
    for name, model in models.items():
        assert samples.scores()[name][0].tolist() == recipe.scores(model).tolist()
    found = samples.verdict("trained").estimate
    gained = recipe.evaluate(models["trained"]) - recipe.evaluate(models["new"])
    assert found.value == pytest.approx(100 * gained)
    assert found.n == 80
    with pytest.raises(ValueError, match="arms must be different names, at least one"):
        graded({}, recipe)
