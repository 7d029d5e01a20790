"""Figures of notebook 15."""

from __future__ import annotations

import math

import pytest
import torch

from labkit.compression.quantize.layer_noise import LayerError
from labkit.lessons.quantization import pictures
from labkit.widgets.style import to_png

OUTCOMES = {50: (20.0, 80.0), 100: (10.0, 90.0), 150: (15.0, 85.0)}


@pytest.mark.parametrize(
    ("values", "edges", "step", "outside"),
    [([-2.0, 0.0, 1.0, 0.5], [-1.0, 1.0], 1 / 3, 25), ([0.0, 2.0, 1.0, 0.5], [1.0], 1 / 7, 25)],
)
def test_clipping(values, edges, step, outside):
    figure, sentence = pictures.clipping(torch.tensor(values), OUTCOMES, 3, 50)
    histogram, error, accuracy = figure.axes
    assert [line.get_xdata()[0] for line in histogram.lines] == edges
    strokes = sorted(segment[0][0] for segment in histogram.collections[-1].get_segments())
    assert strokes[1] - strokes[0] == pytest.approx(step) and strokes[-1] == pytest.approx(1)
    assert len(strokes) == 8
    assert list(error.lines[0].get_ydata()) == [20.0, 10.0, 15.0]
    assert list(accuracy.lines[0].get_ydata()) == [80.0, 90.0, 85.0]
    assert error.lines[1].get_xdata() == [50] and accuracy.lines[1].get_ydata() == [80.0]
    assert sentence.startswith(f"3 bits, clipped at 1: {outside}.00% of the values lie outside")
    assert (
        "error is 20.0 % (it is smallest at 100 %" in sentence and "80.0 % of the ans" in sentence
    )
    assert to_png(figure)


def test_a_grid_of_many_integers_is_not_drawn():
    figure, sentence = pictures.clipping(torch.linspace(-1, 1, 99), OUTCOMES, 8, 100)
    assert "strokes" not in figure.axes[0].get_xlabel() and not figure.axes[0].collections
    assert "a step is 0.0079" in sentence and "0.00% of" in sentence
    assert "strokes" in pictures.clipping(torch.ones(3), OUTCOMES, 3)[0].axes[0].get_xlabel()


def test_zeros_are_left_out_of_the_histogram():
    values = torch.cat([torch.zeros(900), torch.full((100,), 2.0)])
    figure, _ = pictures.clipping(values, OUTCOMES, 8, 100)
    assert figure.axes[0].patches[0].get_data().values.max() == pytest.approx(100)


@pytest.mark.parametrize("errors", [(23.0, 38.0), (4.1, 4.6), (0.2, 90.0), (8.5, 33.0)])
def test_an_axis_of_errors_has_numbers_to_compare_with(errors):
    outcomes = {50: (errors[0], 80.0), 100: (errors[1], 90.0)}
    figure, _ = pictures.clipping(torch.ones(9), outcomes, 8, 100)
    low, high = figure.axes[1].get_ylim()
    ticks = figure.axes[1].get_yticks()
    assert 2 <= len(ticks) <= 8 and low < errors[0] < errors[1] < high
    assert all(low <= tick <= high for tick in ticks)


def test_layer_noise():
    errors = [LayerError("a", 40.0, 50.0, 39.0), LayerError("b", 45.0, math.inf, 44.0)]
    figure, words = pictures.layer_noise(errors)
    (axes,) = figure.axes
    assert [patch.get_width() for patch in axes.patches] == [39.0, 44.0, 39.0]
    edge = axes.get_xlim()[1]
    assert list(axes.lines[1].get_xdata()) == [50.0, edge] and edge > 50
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert "a 39 dB, b 44 dB" in words and to_png(figure)
