"""A choice for a share of the operations: against trying every ratio, and against its budget."""

import pytest
import torch
from support import pruning as support

from labkit import models
from labkit.compression.prune import (
    channel_graph,
    choose,
    magnitude_scores,
    predict_size,
    remove_channels,
)
from labkit.compression.prune.budget import choose_for_flops
from labkit.measure import flops


def counts(keep: dict) -> dict:
    return {name: int(chosen.sum()) for name, chosen in keep.items()}


@pytest.mark.parametrize("multiple", [1, 2, 3])
@pytest.mark.parametrize("together", [False, True])
def test_it_is_the_best_of_all_ratios(multiple: int, together: bool) -> None:
    """Groups of 4, 8 and 16: no two steps are nearer to each other than the grid is fine."""
    model, inputs = support.make("convnet")
    graph = channel_graph(model, inputs)
    scores = magnitude_scores(graph)
    rounding = {"together": together, "multiple": multiple}
    tried = [choose(scores, (i + 0.5) / 1000, **rounding) for i in range(1000)]
    sizes = [predict_size(graph, keep).flops for keep in tried]
    assert sizes == sorted(sizes, reverse=True)  # what bisection stands on
    for share in (1.0, 0.7, sizes[400] / graph.flops, sizes[-1] / graph.flops):
        best = max((size, -i) for i, size in enumerate(sizes) if size <= share * graph.flops)
        keep = choose_for_flops(graph, scores, share, **rounding)
        assert counts(keep) == counts(tried[-best[1]])
        assert all(torch.equal(keep[name], tried[-best[1]][name]) for name in keep)


@pytest.mark.parametrize("name", ["convnet", "resnet18", "mobilenet"])
@pytest.mark.parametrize("share", [0.5, 0.25])
def test_one_step_more_would_be_too_much(name: str, share: float) -> None:
    model, inputs = support.make(name)
    graph = channel_graph(model, inputs)
    scores, multiple = magnitude_scores(graph), 1 if name == "convnet" else 8
    keep = choose_for_flops(graph, scores, share, multiple=multiple)
    left, smaller = predict_size(graph, keep).flops, remove_channels(model, graph, keep)
    assert left == flops(lambda: smaller(inputs))
    assert left <= share * graph.flops
    grid = [predict_size(graph, choose(scores, i / 250, multiple=multiple)) for i in range(250)]
    assert not any(left < size.flops <= share * graph.flops for size in grid)


def test_the_whole_model_is_within_a_budget_of_everything() -> None:
    graph = channel_graph(models.mlp(), torch.ones(1, 64))
    assert all(
        chosen.all() for chosen in choose_for_flops(graph, magnitude_scores(graph), 1).values()
    )


def test_operations_are_counted_once() -> None:
    graph = channel_graph(models.convnet(4), torch.ones(2, 1, 12, 12))
    calls = []
    graph.model.register_forward_hook(lambda *_: calls.append(1))
    choose_for_flops(graph, magnitude_scores(graph), 0.5)
    assert len(calls) == 1


def test_a_share_out_of_reach_is_refused_with_what_can_be_reached() -> None:
    graph = channel_graph(models.convnet(8), torch.ones(1, 1, 12, 12))
    scores = magnitude_scores(graph)
    least = predict_size(graph, choose(scores, 0.99, multiple=8)).flops / graph.flops
    with pytest.raises(ValueError, match=f"flops 0.01 .* smallest choice leaves {least:g}"):
        choose_for_flops(graph, scores, 0.01, multiple=8)
    assert choose_for_flops(graph, scores, least, multiple=8)


@pytest.mark.parametrize("share", [0, -0.5, 1.5, float("nan"), True])
def test_shares_that_are_none_are_refused(share: object) -> None:
    graph = channel_graph(models.mlp(), torch.ones(1, 64))
    with pytest.raises(ValueError, match="flops must be a number above 0 and up to 1, got"):
        choose_for_flops(graph, magnitude_scores(graph), share)


def test_rounding_is_refused_as_choose_refuses_it() -> None:
    graph = channel_graph(models.mlp(), torch.ones(1, 64))
    with pytest.raises(ValueError, match="multiple"):
        choose_for_flops(graph, magnitude_scores(graph), 0.5, multiple=0)
