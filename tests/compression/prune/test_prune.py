"""Structured pruning: what is removed equals what is masked, and is as small as predicted."""

import pytest
import torch
from support import pruning as support
from support.pruning import outputs_zeroed, random_keep, same
from torch import nn

from labkit import models
from labkit.compression.prune import (
    channel_graph,
    choose,
    magnitude_scores,
    mask_channels,
    predict_size,
    remove_channels,
    taylor_scores,
)
from labkit.measure import flops
from labkit.training import train

# ---- the equality, and the size


@pytest.mark.parametrize("name", support.ALL)
def test_removed_equals_masked(name: str) -> None:
    model, inputs = support.make(name)
    before = support.snapshot(model)
    graph = channel_graph(model, inputs)
    keep = random_keep(graph)
    smaller = remove_channels(model, graph, keep)
    with torch.no_grad():
        whole, pruned = model(inputs), smaller(inputs)
        assert same(pruned, mask_channels(model, graph, keep)(inputs))
        if name != "gated":
            assert same(pruned, outputs_zeroed(model, graph, keep)(inputs))
    assert not same(pruned, whole)  # the test would see a model that was not pruned at all
    assert support.unchanged(model, before)
    assert type(smaller) is type(model)


@pytest.mark.parametrize("name", support.ALL)
def test_size_is_as_predicted(name: str) -> None:
    model, inputs = support.make(name)
    graph = channel_graph(model, inputs)
    for keep in ({}, random_keep(graph)):
        smaller = remove_channels(model, graph, keep)
        predicted = predict_size(graph, keep)
        assert predicted.parameters == sum(p.numel() for p in smaller.parameters())
        assert predicted.flops == flops(lambda model=smaller: model(inputs))
        held = (*smaller.parameters(), *smaller.buffers())
        assert predicted.bytes == sum(tensor.nbytes for tensor in held)


def test_half_of_the_channels_is_a_quarter_of_the_inner_layers() -> None:
    model, inputs = support.make("convnet")
    graph = channel_graph(model, inputs)
    smaller = remove_channels(model, graph, choose(magnitude_scores(graph), 0.5))
    reference = models.convnet(width=2)
    shapes = [p.shape for p in smaller.parameters()]
    assert shapes == [p.shape for p in reference.parameters()]


@pytest.mark.parametrize("name", ["depthwise", "grouped", "concat"])
def test_layers_know_their_new_shape(name: str) -> None:
    model, inputs = support.make(name)
    graph = channel_graph(model, inputs)
    for module in remove_channels(model, graph, random_keep(graph)).modules():
        if isinstance(module, nn.Conv2d):
            rows, columns = module.weight.shape[:2]
            assert (module.out_channels, module.in_channels) == (rows, columns * module.groups)
        elif isinstance(module, nn.Linear):
            assert (module.out_features, module.in_features) == module.weight.shape
        elif isinstance(module, nn.BatchNorm2d):
            assert module.num_features == len(module.running_mean) == len(module.weight)


def test_memory_format_frozen_weights_and_mode_are_kept() -> None:
    model, inputs = support.make("convnet")
    model = model.to(memory_format=torch.channels_last).train()
    model.stem.weight.requires_grad_(False)
    graph = channel_graph(model, inputs)
    assert model.training and not graph.model.training
    smaller = remove_channels(model, graph, choose(magnitude_scores(graph), 0.5))
    weight = smaller.blocks[1].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    assert not smaller.stem.weight.requires_grad
    assert smaller.head.weight.requires_grad
    assert smaller.training


@pytest.mark.parametrize("name", ["convnet", "depthwise", "vit"])
def test_trains_after_pruning_and_can_be_pruned_again(name: str) -> None:
    model, inputs = support.make(name, batch=8)
    labels = torch.arange(8) % 5
    graph = channel_graph(model, inputs[:1])
    keep = choose(taylor_scores(graph, [(inputs, labels)]), 0.5)
    smaller = remove_channels(model, graph, keep)
    optimizer = torch.optim.SGD(smaller.parameters(), lr=0.02, momentum=0.9)
    losses = [step.loss for step in train(smaller, [(inputs, labels)], optimizer, epochs=20)]
    assert losses[-1] < 0.8 * losses[0]

    again = channel_graph(smaller, inputs[:1])
    smallest = remove_channels(smaller, again, choose(magnitude_scores(again), 0.5))
    assert sum(p.numel() for p in smallest.parameters()) < sum(
        p.numel() for p in smaller.parameters()
    )
    assert smallest(inputs).shape == model(inputs).shape


def test_a_graph_serves_the_model_as_it_was_trained_since() -> None:
    model, inputs = support.make("concat")
    graph = channel_graph(model, inputs)
    support.lively(model)
    keep = random_keep(graph)
    smaller, masked = (f(model, graph, keep) for f in (remove_channels, mask_channels))
    assert same(smaller(inputs), masked(inputs))


def test_refuses_a_keep_or_a_graph_of_another_model() -> None:
    model, inputs = support.make("concat")
    graph = channel_graph(model, inputs)
    for keep, message in (
        ({"middle": torch.ones(6, dtype=torch.bool)}, "keep names the group 'middle'; there are"),
        ({"left": torch.ones(5, dtype=torch.bool)}, r"keep\['left'\] must be bool \(6,\)"),
        ({"left": torch.zeros(6, dtype=torch.bool)}, "with a true entry"),
        ({"left": torch.ones(6)}, "got torch.float32"),
    ):
        with pytest.raises(ValueError, match=message):
            remove_channels(model, graph, keep)
    with pytest.raises(ValueError, match=r"graph is of another model: .* missing here"):
        remove_channels(models.mlp(), graph, {})
