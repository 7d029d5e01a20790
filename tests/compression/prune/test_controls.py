"""What a pruned model is compared with: random masks, new weights."""

from functools import partial

import pytest
import torch
from support import pruning as support
from support.common import tiny_model, tiny_recipe

from labkit import models
from labkit.compression.prune import magnitude_masks, renewed, shuffled


def test_shuffled_masks_keep_as_many_of_each_tensor() -> None:
    masks = magnitude_masks(models.convnet(width=4), 0.9, together=True)
    random = shuffled(masks)
    assert random.keys() == masks.keys()
    for name, mask in masks.items():
        assert random[name].shape == mask.shape and random[name].sum() == mask.sum()
    assert any(not torch.equal(random[name], mask) for name, mask in masks.items())
    assert all(torch.equal(shuffled(masks)[n], mask) for n, mask in random.items())
    assert any(not torch.equal(shuffled(masks, seed=1)[n], mask) for n, mask in random.items())


def test_renewed_weights_are_new_and_statistics_fresh() -> None:
    training = tiny_recipe(steps=3).training()
    list(training)
    model = training.model
    before = support.snapshot(model)
    fresh = renewed(model)
    assert support.unchanged(model, before)
    assert not torch.equal(fresh.stem.weight, model.stem.weight)
    assert not torch.equal(fresh.head.weight, model.head.weight)
    assert not fresh.norm.running_mean.any() and fresh.norm.weight.eq(1).all()
    recipe = tiny_recipe(model=partial(renewed, tiny_model()))
    first, second = (recipe.training().model for _ in range(2))
    assert torch.equal(first.stem.weight, second.stem.weight)  # the recipe's seed decides


def test_what_cannot_draw_its_weights_anew_is_refused() -> None:
    with pytest.raises(ValueError, match="VisionTransformer. has parameters, but no reset"):
        renewed(support.vit())
