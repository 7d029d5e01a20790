"""Notebook 14: what its cells run: trainings, cuts, times in turn."""

from __future__ import annotations

import pytest
import torch
from support.common import tiny_recipe

from labkit import models
from labkit.compression import prune
from labkit.facts import threads
from labkit.lessons.pruning import measure
from labkit.measure import Timing
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


@pytest.mark.parametrize(
    ("stem", "inner", "second"),
    [(16, 16, 32), (10, 16, 32), (16, 6, 32), (6, 16, 8), (8, 8, 32), (4, 4, 4)],
)
def test_peak_memory_is_foretold(stem, inner, second):
    model = models.convnet(width=16).eval().to(memory_format=torch.channels_last)
    images = torch.rand(32, 1, 28, 28).contiguous(memory_format=torch.channels_last)
    graph = prune.channel_graph(model, images[:1])
    keep = {name: torch.ones(len(g.units), dtype=torch.bool) for name, g in graph.groups.items()}
    cut = {
        "stem": stem,
        "blocks.0.conv1": inner,
        "blocks.1.conv1": second,
        "blocks.1.conv2": second,
    }
    for name, count in cut.items():
        keep[name][count:] = False
    smaller = prune.remove_channels(model, graph, keep)
    table = measure.size_table(graph, keep, (model, smaller), images)
    for name, _, predicted, measured, _ in table.rows:
        predicted, measured = (int(text.replace(",", "")) for text in (predicted, measured))
        if name.startswith("peak"):
            # with the peak in the last block, some workspace of a kernel comes on top
            assert measured == pytest.approx(predicted, rel=0.1 if stem == 4 else 1e-3)
        else:
            assert measured == predicted


def test_groups_table_names_the_residual_partners_and_the_head():
    table = measure.groups_table(prune.channel_graph(models.convnet(), torch.zeros(1, 1, 28, 28)))
    assert ("stem", "16", "stem, blocks.0.conv2") in table.rows
    assert table.rows[-1] == ("head", "–", "stays: it is the model's output")


def timed(each, rounds=30):
    return {n: Timing(str(n), (seconds,) * rounds) for n, seconds in each.items()}


def test_a_step_is_what_costs_more_than_its_channels():
    fair = {n: n * 1e-4 for n in (48, 49, 56, 57, 64)}
    verdicts = measure.one_too_many(timed(fair))
    assert list(verdicts) == ["49 channels", "57 channels"]
    assert {v.call for v in verdicts.values()} == {"no difference that matters"}
    steps = fair | {49: 1.1 * fair[49], 57: 0.9 * fair[57]}
    calls = {name: v.call for name, v in measure.one_too_many(timed(steps)).items()}
    assert calls == {"49 channels": "worse", "57 channels": "better"}
    assert measure.one_too_many(timed(fair, rounds=2))["49 channels"].call == "too few"


def test_sizes_stand_beside_scores():
    recipe = tiny_recipe()
    model = recipe.training().model
    pruned = prune.masked(model, prune.magnitude_masks(model, 0.9))
    samples = measure.with_sizes({"all": model, "few": pruned}, recipe)
    assert samples.value("few").value == pytest.approx(100 * recipe.evaluate(pruned))
    assert samples.value("few", "size").value == pytest.approx(prune.compressed_bytes(pruned) / 1e6)
    assert samples.verdict("few", on="size").call == "better"
