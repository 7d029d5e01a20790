"""Structured pruning in one call: the same as its steps."""

from functools import partial

import pytest
import torch
from support import pruning as support
from torch import nn

from labkit import models
from labkit.compression.prune import (
    batch_norm_scores,
    channel_graph,
    channels,
    choice,
    choose,
    choose_for_flops,
    magnitude_scores,
    remove_channels,
    taylor_scores,
)
from labkit.measure import flops


@pytest.fixture(autouse=True)
def on_any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on those where a few channels more stay."""
    monkeypatch.setattr(choice, "breaks_strided_1x1", lambda: False)


def equal(some: nn.Module, other: nn.Module) -> bool:
    return support.unchanged(some, other.state_dict())


def test_a_ratio_is_what_the_steps_give_by_hand() -> None:
    model, inputs = support.make("convnet")
    graph = channel_graph(model, inputs)
    scores = magnitude_scores(graph)
    for ratio, settings in (
        (0.5, {}),
        ({"stem": 0.25}, {}),
        (0.3, {"together": True}),
        (0.5, {"multiple": 4}),
    ):
        keep = choose(scores, ratio, **settings)
        smaller = channels(model, inputs, ratio, **settings)
        assert equal(smaller, remove_channels(model, graph, keep))
        assert not equal(smaller, model)


def test_a_share_of_the_operations_is_kept_at_most() -> None:
    model, inputs = support.make("convnet")
    graph = channel_graph(model, inputs)
    smaller = channels(model, inputs, flops=0.4)
    keep = choose_for_flops(graph, magnitude_scores(graph), 0.4)
    assert equal(smaller, remove_channels(model, graph, keep))
    left = flops(lambda: smaller(inputs)) / flops(lambda: model(inputs))
    assert 0.3 < left <= 0.4


def test_another_criterion_chooses() -> None:
    model, inputs = support.make("convnet", batch=8)
    graph, batches = channel_graph(model, inputs), [(inputs, torch.arange(8))]
    taylor = partial(taylor_scores, batches=batches)
    for criterion in (batch_norm_scores, taylor):
        keep = choose(criterion(graph), 0.5)
        smaller = channels(model, inputs, 0.5, criterion=criterion)
        assert equal(smaller, remove_channels(model, graph, keep))


def test_refuses_both_and_neither() -> None:
    model, inputs = models.mlp(), torch.zeros(1, 64)
    for arguments in ({}, {"ratio": 0.5, "flops": 0.5}):
        with pytest.raises(ValueError, match="give either ratio or flops, got"):
            channels(model, inputs, **arguments)
    with pytest.raises(ValueError, match="ratio must be from 0"):
        channels(model, inputs, 1.0)
    with pytest.raises(ValueError, match="flops must be a number above 0"):
        channels(model, inputs, flops=0)


@pytest.mark.parametrize(("broken", "left"), [(True, 8), (False, 4)])
def test_layers_that_torch_cannot_train_keep_eight_inputs(
    monkeypatch: pytest.MonkeyPatch, broken: bool, left: int
) -> None:
    monkeypatch.setattr(choice, "breaks_strided_1x1", lambda: broken)
    model, images = models.convnet(16), torch.randn(2, 1, 16, 16)
    smaller = channels(model, images, ratio=0.75)
    assert smaller.stem.out_channels == left  # a block with a stride reads it
    assert smaller.blocks[1].shortcut.in_channels == left
    assert smaller.blocks[0].conv1.out_channels == 4  # read by a layer of 3x3
    assert channels(model, images, ratio=0.95).stem.out_channels == 1
