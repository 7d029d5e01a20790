"""Notebook 14: what its cells run: masks that hold, scales that stop at zero, times in turn."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from support.common import tiny_model, tiny_recipe
from torch import nn

from labkit import models
from labkit.compression import prune
from labkit.facts import threads
from labkit.lessons.pruning import measure
from labkit.training import SGD, Step, train


@pytest.fixture(autouse=True)
def one_thread():
    with threads(1):
        yield


def step(index=0, lr=0.1):
    return Step(index, 0, 1.0, lr, (0.0, 0.0, 0.0, 0.0))


def test_trained_is_the_recipes_training_with_a_look_after_each_step():
    recipe, seen = tiny_recipe(), []
    training = recipe.training()
    for _ in training:
        pass
    model = measure.trained(recipe, lambda net, step, done: seen.append((step.index, done)))
    assert not model.training
    for mine, theirs in zip(model.parameters(), training.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert seen == [(i, (i + 1) / 10) for i in range(10)]


def test_held_weights_stay_zero_through_momentum():
    recipe = tiny_recipe()
    masks = prune.magnitude_masks(recipe.training().model, 0.5)
    model = measure.trained(recipe, measure.hold(masks))
    assert all(not dict(model.named_parameters())[n][~mask].any() for n, mask in masks.items())
    assert prune.sparsity(model) == pytest.approx(0.5, abs=0.01)


def test_growing_follows_the_schedule_and_ends_where_it_should():
    model, after = models.mlp(), measure.grow(0.9, until=0.5, every=2)
    found = []
    for index in range(10):
        with torch.no_grad():
            model[0].weight.add_(0.01 * torch.randn_like(model[0].weight))
        after(model, step(index), (index + 1) / 10)
        found.append(prune.sparsity(model))
    wanted = [prune.cubic_sparsity(min(1, 2 * done / 10), 0.9) for done in (1, 3, 5, 7, 9, 10)]
    assert [found[i] for i in (0, 2, 4, 6, 8, 9)] == pytest.approx(wanted, abs=1e-3)
    assert found[1] == found[0] and found[3] == found[2]  # held in between


def test_shrinking_moves_every_scale_by_the_same_and_stops_at_zero():
    model = tiny_model()
    scales = [m.weight for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for scale in scales:
            scale[0], scale[1] = 0.5, -0.01
    others = {n: p.clone() for n, p in model.named_parameters() if "norm" not in n or "bias" in n}
    measure.shrink(0.3)(model, step(lr=0.1), 0.5)
    for scale in scales:
        assert scale[:2].tolist() == pytest.approx([0.47, 0.0])
    for name, before in others.items():
        assert torch.equal(dict(model.named_parameters())[name], before)


def test_scales_at_zero_are_found_as_dead():
    model = models.convnet(width=4)
    with torch.no_grad():
        model.blocks[0].norm1.weight[:2] = 0.01
    measure.shrink(0.3)(model, step(lr=0.1), 0.5)
    found = prune.remove_lossless(model, torch.zeros(1, 1, 12, 12))
    assert found.removed == 2
    inputs = torch.rand(8, 1, 12, 12)
    assert measure.difference(model, found.model, inputs) < 1e-5


def test_cut_leaves_a_share_also_of_another_model():
    torch.manual_seed(0)
    model, images = models.convnet(width=16), torch.rand(4, 1, 12, 12)
    batches = [(images, torch.arange(4))]
    whole = prune.channel_graph(model, images[:1]).flops
    half = measure.cut(model, 0.5, images[:1], batches, multiple=2)
    left = prune.channel_graph(half, images[:1]).flops
    assert 0.4 * whole < left <= 0.5 * whole
    quarter = measure.cut(half, 0.25, images[:1], batches, multiple=2, of=whole)
    assert 0.15 * whole < prune.channel_graph(quarter, images[:1]).flops <= 0.25 * whole
    assert measure.cut(half, 0.9, images[:1], batches, of=whole) is not half  # nothing to do


def test_shuffled_masks_keep_as_many_of_each_tensor():
    masks = prune.magnitude_masks(models.convnet(width=4), 0.9, together=True)
    random = measure.shuffled(masks)
    assert random.keys() == masks.keys()
    for name, mask in masks.items():
        assert random[name].shape == mask.shape and random[name].sum() == mask.sum()
    assert any(not torch.equal(random[name], mask) for name, mask in masks.items())
    assert all(torch.equal(measure.shuffled(masks)[n], mask) for n, mask in random.items())


def test_renewed_weights_are_new_and_statistics_fresh():
    model = tiny_model()
    optimizer = SGD(0.1).build(model)
    for _ in train(model, tiny_recipe().batches(), optimizer, steps=3):
        pass
    before = copy.deepcopy(model.state_dict())
    fresh = measure.renewed(model)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert not torch.equal(fresh.stem.weight, model.stem.weight)
    assert not torch.equal(fresh.head.weight, model.head.weight)
    assert not fresh.norm.running_mean.any() and fresh.norm.weight.eq(1).all()
    recipe = tiny_recipe(model=partial(measure.renewed, model))
    first, second = (recipe.training().model for _ in range(2))
    assert torch.equal(first.stem.weight, second.stem.weight)  # the recipe's seed decides


def test_widths_times_a_convolution_for_each():
    times = measure.widths([3, 4], rounds=2)
    assert {n: len(timing.seconds) for n, timing in times.items()} == {3: 2, 4: 2}
