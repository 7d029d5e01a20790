"""Figures of notebook 14: what they show and say."""

from __future__ import annotations

import pytest
import torch

from labkit import models
from labkit.compare import SIZE, Quantity, Samples
from labkit.compression.prune import channel_graph, choose, magnitude_scores, predict_size
from labkit.lessons.pruning import pictures
from labkit.measure import Timing
from labkit.training.task import ACCURACY


def timing(seconds):
    return Timing("", tuple(seconds for _ in range(8)))


def planted(ways, whole=(0.95, 9000)):
    """Samples of 1,000 examples: {way: (share right, bytes)}."""
    metric = Quantity.of(ACCURACY)
    samples = Samples(("whole", *ways), (metric, SIZE))
    for arm, (share, size) in {"whole": whole, **ways}.items():
        right = round(1000 * share)
        samples.add_scores(arm, metric, [1.0] * right + [0.0] * (1000 - right))
        samples.add(arm, SIZE, size)
    return samples


def test_sparsities_have_a_line_for_each_way_and_the_whole_model():
    found = {
        0.9: planted({"a": (0.5, 2000), "b": (0.8, 3000)}),
        0.5: planted({"a": (0.7, 4000), "b": (0.9, 5000)}),
    }
    left, right = pictures.sparsities(found).axes
    for axes, first, whole in ((left, [70, 50], 95), (right, [4e-3, 2e-3], 9e-3)):
        dashed, a, _ = (line.get_ydata() for line in axes.lines)
        assert list(a) == pytest.approx(first) and list(dashed) == pytest.approx([whole] * 2)
        assert list(axes.lines[1].get_xdata()) == pytest.approx([50, 90])
        assert axes.get_xlabel() == "zeros (%)"
    assert {"a", "b"} <= {text.get_text() for text in left.texts}


def test_one_sparsity_is_enough():
    assert pictures.sparsities({0.9: planted({"a": (0.5, 2000)})}).axes


def test_kept_shows_counts_and_says_what_is_gained():
    graph = channel_graph(models.convnet(width=8), torch.zeros(1, 1, 28, 28))
    keep = choose(magnitude_scores(graph), 0.5)
    fig, said = pictures.kept(graph, keep, {"whole": timing(0.03), "smaller": timing(0.01)})
    (axes,) = fig.axes
    said_beside = [text.get_text() for text in axes.texts if " of " in text.get_text()]
    assert said_beside == [f"{n // 2} of {n}" for n in (8, 8, 16, 16, 32, 32)]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(keep)
    share = predict_size(graph, keep).flops / graph.flops
    assert said.startswith(f"{1 / share:.2f} times fewer operations. smaller over whole")
    assert "3.00x faster" in said


def test_widths_show_steps_and_a_straight_line():
    fig = pictures.widths({24: timing(0.003), 17: timing(0.0025), 20: timing(0.003)})
    (axes,) = fig.axes
    measured, fair = axes.lines
    assert list(measured.get_xdata()) == [17, 20, 24]
    assert list(measured.get_ydata()) == pytest.approx([2.5, 3, 3])
    assert list(fair.get_ydata()) == pytest.approx([3 * n / 24 for n in (17, 20, 24)])
    assert list(axes.get_xticks()) == [24] and axes.get_ylim()[0] == 0
