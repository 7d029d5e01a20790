"""The scan of one group at a time: what it measures, its table, and how it is watched."""

from __future__ import annotations

import pytest
import torch

from labkit import models
from labkit.compression.prune import (
    channel_graph,
    magnitude_scores,
    sensitivity,
    sensitivity_table,
)
from labkit.watch import Panel
from labkit.widgets import live, watch


def size(model):
    """A stand-in for accuracy that is known beforehand: the share of 2,000 parameters."""
    return sum(p.numel() for p in model.parameters()) / 2000


def scan(model, example, ratios, measure=size):
    graph = channel_graph(model, example)
    return sensitivity(model, graph, magnitude_scores(graph), measure, ratios)


def test_values_are_those_of_the_smaller_models_and_nothing_gone_costs_nothing():
    calls = []
    model = models.mlp(inputs=8, hidden=16, classes=4)
    found = list(
        scan(model, torch.ones(1, 8), (0.0, 0.25, 0.5), lambda m: calls.append(m) or size(m))
    )
    whole = (8 * 16 + 16 + 16 * 4 + 4) / 2000
    expected = [whole, whole - 4 * 13 / 2000, whole - 8 * 13 / 2000]
    assert [result.value for result in found] == pytest.approx(expected)
    assert [(result.kept, result.channels) for result in found] == [(16, 16), (12, 16), (8, 16)]
    assert len(calls) == 3  # the whole model once, and two smaller ones
    assert calls[0] is model


def test_removed_is_what_is_gone_not_what_was_asked_for():
    """Half of three channels is no whole number."""
    first = next(scan(models.convnet(width=3).eval(), torch.ones(1, 1, 12, 12), (0.5,)))
    assert first.removed == pytest.approx(2 / 3)


def test_the_table_has_a_row_for_each_group_and_fills_what_is_missing():
    results = scan(models.convnet(width=4).eval(), torch.ones(1, 1, 12, 12), (0.25, 0.5, 0.75))
    found = [next(results) for _ in range(4)]  # all of the first group, one of the second
    table = sensitivity_table(found)
    assert table.headers == ("group", "channels", "25% gone", "50% gone", "75% gone")
    first, second = table.rows
    assert first[:2] == ("blocks.0.conv1", "4")
    lost = [100 * (result.before - result.value) for result in found]
    assert [float(cell) for cell in first[2:]] == pytest.approx(lost[:3], abs=0.06)
    assert second[3:] == ("–", "–") and float(second[2]) == pytest.approx(lost[3], abs=0.06)


def test_it_is_watched_as_any_iterable():
    model = models.convnet(width=4).eval()
    graph = channel_graph(model, torch.ones(1, 1, 12, 12))
    scores, ratios = magnitude_scores(graph), (0.0, 0.5)
    panel = Panel("One group at a time", "value (%)", ("gone (%)",), tuple(scores))
    run = live(
        watch(
            sensitivity(model, graph, scores, size, ratios),
            panel,
            lambda found: {found.group: (100 * found.removed, 100 * found.value)},
            total=len(ratios) * len(scores),
            table=sensitivity_table,
        )
    )
    run.wait()
    assert (run.state, len(run.results)) == ("finished", 2 * len(scores))
    assert len(run.view.rows) == len(run.results)
    assert "blocks.2.conv2" in run.picture.alt
