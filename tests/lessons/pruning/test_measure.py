"""Notebook 14: what its cells run: trainings, cuts, times in turn."""

from __future__ import annotations

import pytest
import torch
from support.common import tiny_recipe

from labkit import models
from labkit.compression import prune
from labkit.facts import threads
from labkit.lessons.pruning import measure
from labkit.training import average_weights


@pytest.fixture(autouse=True)
def one_thread():
    with threads(1):
        yield


def test_trained_is_what_the_recipe_s_training_ends_with():
    recipe = tiny_recipe(between=(average_weights(0.5),))
    training = recipe.training()
    for _ in training:
        pass
    model = measure.trained(recipe)
    assert not model.training
    for mine, theirs in zip(model.parameters(), training.answering.parameters(), strict=True):
        assert torch.equal(mine, theirs)


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


def test_widths_times_a_convolution_for_each():
    times = measure.widths([3, 4], rounds=2)
    assert {n: len(timing.seconds) for n, timing in times.items()} == {3: 2, 4: 2}
