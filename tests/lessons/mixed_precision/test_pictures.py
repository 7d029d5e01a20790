"""Figures of notebook 03 show the numbers that a format has, and what they are given."""

from __future__ import annotations

import pytest
import torch
from support.common import sizes_at

from labkit.lessons.mixed_precision import pictures
from labkit.measure.formats import FORMATS
from labkit.widgets.style import to_png


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("power", [-30, -25, -24, -20, -14, 0, 15, 16, 20])
def test_neighbors_says_what_becomes_of_the_value(name, power):
    _, text = pictures.neighbors(name, power)
    fate = FORMATS[name].fate(2.0**power)
    expected = {"zero": "becomes 0", "infinite": "becomes infinity", "subnormal": "Subnormal"}
    assert expected.get(fate, "is exact") in text


@pytest.mark.parametrize("power", [-24, -20, -15, -14, -13, 0, 14])
@pytest.mark.parametrize(("row", "name"), [(0, "fp16"), (1, "bf16")])
def test_neighbors_draws_every_number_in_the_window(row, name, power):
    """Against all 65,536 bit patterns of the format."""
    fig, _ = pictures.neighbors(name, power)
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(FORMATS[name].dtype).double()
    width = pictures.WINDOW * 2.0**power
    wanted = every[(every - 2.0**power).abs() <= width].tolist()
    drawn = {2.0**power * stroke[0][0] for stroke in fig.axes[1].collections[row].get_segments()}
    assert sorted(drawn) == wanted


def test_neighbors_counts_the_bits_that_are_left():
    assert "4 of 10" in pictures.neighbors("fp16", -20)[1]
    assert "0 of 10" in pictures.neighbors("fp16", -24)[1]


def test_gradient_picture_moves_with_the_scale():
    sizes = {"activations": sizes_at(-30, -20), "weights": sizes_at(-12, -8)}
    fig, text = pictures.gradients(sizes, 0)
    assert "Activations: 50" in text
    assert "Weights: 0.00% become 0, 0.00% subnormal, 0.00% infinite" in text
    shifted, text = pictures.gradients(sizes, 26)
    assert "Activations: 0.00% become 0" in text
    assert "Weights: 0.00% become 0, 0.00% subnormal, 50" in text
    peaks = [axes.patches[0].get_data().values.argmax() for axes in (fig.axes[0], shifted.axes[0])]
    assert peaks[1] - peaks[0] == 26  # bins of one power of two, to the right


def test_small_losses_and_scale_history_draw_what_they_get():
    fig = pictures.small_losses(
        {
            name: {k: torch.tensor([loss - 0.25, loss + 0.25]) for k, loss in of.items()}
            for name, of in {"fp32": {0: 0.5, 8: 0.5}, "fp16": {0: 0.5, 8: 1.0}}.items()
        }
    )
    assert [list(line.get_ydata()) for line in fig.axes[0].lines] == [[0.5, 0.5], [0.5, 1.0]]
    fig = pictures.scale_history([8.0, 4.0, 4.0], [True, False, False])
    steps, crosses = fig.axes[0].lines
    assert list(steps.get_ydata()) == [3, 2, 2]
    assert list(crosses.get_xdata()) == [0]
    assert to_png(pictures.scale_history([4.0, 4.0], [False, False]))
