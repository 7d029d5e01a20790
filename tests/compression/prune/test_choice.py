"""Criteria against their definitions; the choice against its rules; the scan."""

import pytest
import torch
from support import pruning as support
from torch import nn
from torch.nn import functional as F

from labkit import models
from labkit.compression.prune import (
    batch_norm_scores,
    channel_graph,
    choose,
    magnitude_scores,
    remove_channels,
    sensitivity,
    taylor_scores,
)
from labkit.training import evaluate


def make_batches(model_inputs: torch.Tensor, classes: int, count: int = 3) -> list:
    generator = torch.Generator().manual_seed(1)
    shape = (6, *model_inputs.shape[1:])
    return [
        (torch.rand(shape, generator=generator), torch.randint(classes, (6,), generator=generator))
        for _ in range(count)
    ]


# ---- criteria


@pytest.mark.parametrize("order", [1, 2])
def test_magnitude_is_the_norm_of_rows_and_columns(order: int) -> None:
    model = models.mlp(inputs=5, hidden=7, classes=3)
    graph = channel_graph(model, torch.ones(1, 5))
    weights = torch.cat([model[0].weight, model[2].weight.T], dim=1)
    norms = weights.detach().norm(p=order, dim=1)
    scores = magnitude_scores(graph, order)
    torch.testing.assert_close(scores, {"0": norms / norms.mean()})


def test_magnitude_counts_all_coupled_layers() -> None:
    model, inputs = support.make("convnet")
    scores = magnitude_scores(channel_graph(model, inputs))
    block, head = model.blocks[2], model.head.weight
    rows = [block.conv2.weight.flatten(1), block.shortcut.weight.flatten(1), head.T]
    norms = torch.cat(rows, dim=1).detach().norm(dim=1)
    torch.testing.assert_close(scores["blocks.2.conv2"], norms / norms.mean())


def test_flattened_channels_count_all_their_columns() -> None:
    model, inputs = support.make("concat")
    scores = magnitude_scores(channel_graph(model, inputs))
    columns = model.head.weight.view(5, 10, 4).transpose(0, 1).flatten(1)[6:]
    norms = torch.cat([model.right.weight.flatten(1), columns], dim=1).detach().norm(dim=1)
    torch.testing.assert_close(scores["right"], norms / norms.mean())


def test_batch_norm_criterion_sums_the_scales_and_leaves_others_out() -> None:
    model, inputs = support.make("depthwise")
    scores = batch_norm_scores(channel_graph(model, inputs))
    assert scores.keys() == {"widen"}  # the other groups have no batch norm
    expected = model.norm1.weight.abs() + model.norm2.weight.abs().view(8, 2).sum(1)
    torch.testing.assert_close(scores["widen"], expected.detach())


def test_taylor_is_the_squared_gradient_of_a_gate_before_the_readers() -> None:
    model, inputs = support.make("convnet")
    graph, batches = channel_graph(model, inputs), make_batches(inputs, 10)
    scores = taylor_scores(graph, batches)
    gates = {
        "blocks.1.conv1": ([model.blocks[1].conv2], torch.ones(8, 1, 1, requires_grad=True)),
        "blocks.1.conv2": (
            [model.blocks[2].conv1, model.blocks[2].shortcut],
            torch.ones(8, 1, 1, requires_grad=True),
        ),
    }
    for name, (readers, gate) in gates.items():
        handles = [
            reader.register_forward_pre_hook(lambda _, args, gate=gate: (args[0] * gate,))
            for reader in readers
        ]
        slopes = [torch.autograd.grad(F.cross_entropy(model(x), y), gate)[0] for x, y in batches]
        expected = torch.stack([slope.flatten() ** 2 for slope in slopes]).mean(0)
        torch.testing.assert_close(scores[name], expected, rtol=1e-3, atol=1e-9)
        for handle in handles:
            handle.remove()


def test_taylor_leaves_gradients_and_mode_alone_and_gives_unread_channels_nothing() -> None:
    model, inputs = support.make("convnet")
    model.train()
    with torch.no_grad():
        model.blocks[1].conv2.weight[:, 3] = 0
    before = support.snapshot(model)
    scores = taylor_scores(channel_graph(model, inputs), make_batches(inputs, 10))
    assert scores["blocks.1.conv1"][3] == 0
    assert (scores["blocks.1.conv1"] > 0).sum() >= 4  # a few never wake either
    assert support.unchanged(model, before) and model.training
    assert all(p.grad is None for p in model.parameters())


def test_taylor_foretells_what_a_small_change_does() -> None:
    """Removing a channel whose columns are tiny changes the loss by the root of its score."""
    model, inputs = support.make("gated")
    model.double()
    batches = [(x.double(), y) for x, y in make_batches(inputs, 5, count=1)]
    with torch.no_grad():
        model.layers[2].weight *= 1e-4
    graph = channel_graph(model, batches[0][0])
    scores, group = taylor_scores(graph, batches), graph.groups["layers.0"]
    (x, y), whole = batches[0], F.cross_entropy(model(batches[0][0]), batches[0][1])
    for unit in range(len(group.units)):
        keep = {"layers.0": torch.arange(8) != unit}
        change = (F.cross_entropy(remove_channels(model, graph, keep)(x), y) - whole).detach()
        assert abs(float(change)) == pytest.approx(float(scores["layers.0"][unit].sqrt()), rel=0.01)


def test_criteria_refuse_bad_input() -> None:
    graph = channel_graph(models.mlp(), torch.ones(1, 64))
    with pytest.raises(ValueError, match="order must be 1 or 2, got 3"):
        magnitude_scores(graph, 3)
    with pytest.raises(ValueError, match="no channels with a batch norm"):
        batch_norm_scores(graph)
    with pytest.raises(ValueError, match="batches is empty"):
        taylor_scores(graph, [])
    images, labels = torch.rand(2, 64), torch.tensor([0, 1])
    for batch, message in (
        ((images * float("nan"), labels), "batch 1 has no loss to differentiate: it is nan"),
        ((images, labels + 99), "batch 1 does not fit the model: Target 99 is out of bounds"),
        ((images[:, :5], labels), "batch 1 does not fit the model: mat1 and mat2"),
    ):
        with pytest.raises(ValueError, match=message):
            taylor_scores(graph, [(images, labels), batch])


def test_taylor_scores_of_frozen_layers_are_those_of_free_ones() -> None:
    model, inputs = support.make("convnet")
    batches = make_batches(inputs, 10)
    free = taylor_scores(channel_graph(model, inputs), batches)
    model.stem.requires_grad_(False)
    model.blocks[1].requires_grad_(False)
    frozen = taylor_scores(channel_graph(model, inputs), batches)
    torch.testing.assert_close(frozen, free)
    assert not model.stem.weight.requires_grad


# ---- the choice

SCORES = {"a": torch.tensor([3.0, 1.0, 2.0, 4.0]), "b": torch.tensor([0.1, 0.2] * 5)}


def counts(keep: dict) -> dict:
    return {name: int(chosen.sum()) for name, chosen in keep.items()}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"ratio": 0}, {"a": 4, "b": 10}),
        ({"ratio": 0.5}, {"a": 2, "b": 5}),
        ({"ratio": 0.3}, {"a": 3, "b": 7}),
        ({"ratio": 0.99}, {"a": 1, "b": 1}),
        ({"ratio": {"a": 0.75}}, {"a": 1, "b": 10}),
        ({"ratio": 0.5, "multiple": 4}, {"a": 4, "b": 4}),
        ({"ratio": 0.3, "multiple": 4}, {"a": 4, "b": 8}),
        ({"ratio": 0.9, "multiple": 8}, {"a": 4, "b": 8}),
        ({"ratio": 0.0, "multiple": 8}, {"a": 4, "b": 8}),
        ({"ratio": 0.5, "together": True}, {"a": 4, "b": 3}),
        ({"ratio": 0.9, "together": True}, {"a": 1, "b": 1}),
    ],
)
def test_how_many_stay(arguments: dict, expected: dict) -> None:
    assert counts(choose(SCORES, **arguments)) == expected


def test_the_best_stay() -> None:
    keep = choose(SCORES, 0.5)
    assert keep["a"].tolist() == [True, False, False, True]
    assert keep["b"].tolist() == [False, True] * 5
    together = choose(SCORES, 0.5, together=True)
    assert together["b"].nonzero().flatten().tolist() == [1, 3, 5]  # equal ones: the first stay


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": 1.0}, "ratio must be from 0 up to but not 1, got 1.0"),
        ({"ratio": -0.1}, "ratio must be from 0"),
        ({"ratio": float("nan")}, "ratio must be from 0"),
        ({"ratio": {"c": 0.5}}, "ratio names the group 'c'; there are a, b"),
        ({"ratio": {"a": 0.5}, "together": True}, "ratio must be one number"),
        ({"ratio": 0.5, "multiple": 0}, "multiple"),
    ],
)
def test_choice_refuses_bad_input(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose(SCORES, **arguments)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "scores is empty"),
        ({"a": torch.tensor([1.0, float("nan")])}, r"scores\['a'\] must be .* with 1 nan"),
        ({"a": torch.ones(2, 3)}, r"scores\['a'\] must be one number a unit.* got \(2, 3\)"),
        ({"a": torch.ones(0)}, r"scores\['a'\] must be one number a unit"),
    ],
)
@pytest.mark.parametrize("together", [False, True])
def test_choice_refuses_scores_that_rank_nothing(
    scores: dict, message: str, together: bool
) -> None:
    with pytest.raises(ValueError, match=message):
        choose(scores, 0.5, together=together)


# ---- the scan


def test_scan_yields_each_group_and_ratio_as_it_is_measured() -> None:
    model, inputs = support.make("concat")
    graph, batches = channel_graph(model, inputs), make_batches(inputs, 5)
    scores, measured = magnitude_scores(graph), []

    def measure(smaller: nn.Module) -> float:
        measured.append(smaller)
        return evaluate(smaller, batches)

    scan = sensitivity(model, graph, scores, measure, ratios=(0.0, 0.5))
    first = next(scan)
    assert measured == [model]  # nothing goes, so nothing is measured again
    assert first.value == first.before == evaluate(model, batches)
    points = [first, *scan]
    assert [(p.group, p.ratio, p.kept, p.channels) for p in points] == [
        ("left", 0.0, 6, 6),
        ("left", 0.5, 3, 6),
        ("right", 0.0, 4, 4),
        ("right", 0.5, 2, 4),
    ]
    expected = remove_channels(model, graph, choose(scores, {"right": 0.5}))
    assert points[-1].value == evaluate(expected, batches)
    with pytest.raises(ValueError, match="ratio must be"):
        list(sensitivity(model, graph, scores, measure, ratios=(2.0,)))
    with pytest.raises(TypeError, match="measure must return a number, got None"):
        list(sensitivity(model, graph, scores, lambda _: None))
