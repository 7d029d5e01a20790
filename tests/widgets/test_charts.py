"""Figures show the figures: what is drawn is what was computed."""

import itertools

import numpy
import pytest
from support.common import tiny_data

from labkit.measure import Ceiling, Estimate, paired_ratio, standing
from labkit.widgets import charts, style


def roof() -> Ceiling:
    rates = {
        name: Estimate(peak, peak, peak, 9) for name, peak in (("fp32", 100.0), ("bf16", 400.0))
    }
    return Ceiling(rates, rates, Estimate(10.0, 10.0, 10.0, 9), threads=1, device="cpu")


def test_the_roof_is_the_lower_of_peak_and_slope() -> None:
    point = standing(int(2e9), int(1e8), 0.05, roof())
    axes = charts.roofline(roof(), {"a step": (point, "fp32")}).axes[0]
    lines = axes.get_lines()
    for line, peak in zip(lines[:2], (100.0, 400.0), strict=True):
        x, y = line.get_data()
        numpy.testing.assert_allclose(y, numpy.minimum(peak, 10.0 * numpy.asarray(x)))
    assert lines[2].get_data() == ([point.intensity], [point.achieved])
    assert lines[2].get_color() == lines[0].get_color()  # a point has its roof's colour
    words = {text.get_text() for text in axes.texts}
    assert {"fp32: 100 GFLOP/s", "bf16: 400 GFLOP/s", "a step: 40", "slope: 10 GB/s"} <= words
    assert axes.get_xlabel() == "FLOP per byte moved"


def test_points_close_together_keep_their_labels_apart() -> None:
    points = {
        name: (standing(int(2e9), int(1e8), seconds, roof()), "fp32")
        for name, seconds in (("a", 0.050), ("b", 0.051), ("c", 0.052))
    }
    axes = charts.roofline(roof(), points).axes[0]
    heights = sorted(t.xy[1] for t in axes.texts if t.get_text()[:2] in {"a:", "b:", "c:"})
    assert min(b / a for a, b in itertools.pairwise(heights)) >= 1.44


def test_lines_carry_their_names_where_they_end() -> None:
    axes = style.figure().subplots()
    curves = {"falls": ([1, 2, 4], [3.0, 2.0, 1.0]), "rises": ([1, 2, 4], [0.5, 2.0, 5.0])}
    charts.lines(axes, curves, "Both", "steps", "loss (nats)", marks=True, bottom=0)
    falls, rises = axes.get_lines()
    assert (list(falls.get_ydata()), list(rises.get_xdata())) == ([3, 2, 1], [1, 2, 4])
    assert falls.get_marker() != rises.get_marker() and falls.get_color() != rises.get_color()
    heights = {text.get_text(): text.xy[1] for text in axes.texts}
    assert heights["rises"] > heights["falls"]
    assert axes.get_xlim() == (1, 4) and axes.get_ylim()[0] == 0


def test_rows_are_named_from_top_to_bottom() -> None:
    axes = style.figure().subplots()
    charts.name_rows(axes, ["first", "second"], color="red")
    axes.figure.draw_without_rendering()
    labels = axes.get_yticklabels()
    assert [label.get_text() for label in labels] == ["first", "second"]
    assert labels[0].get_window_extent().y0 > labels[1].get_window_extent().y0
    assert labels[0].get_color() == "red"


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.8, 1200, ["1", "10", "100", "1000"]),
        (0.2, 5, ["0.3", "1", "3"]),
        (2, 5.5, ["2", "5"]),
        (6, 8.5, ["6", "7", "8"]),
    ],
)
def test_a_logarithmic_axis_has_plain_numbers(low: float, high: float, ticks: list[str]) -> None:
    axes = style.figure().subplots()
    axes.set(yscale="log", ylim=(low, high))
    charts.plain_ticks(axes.yaxis, low, high)
    axes.figure.draw_without_rendering()
    assert [label.get_text() for label in axes.get_yticklabels()] == ticks


@pytest.mark.parametrize("shown", [5, 20])
def test_ratios_show_the_rounds_and_the_interval_of_the_verdict(shown: int) -> None:
    pairs = [1.2 + 0.01 * (i % 7) for i in range(40)]
    axes = charts.ratios(pairs, shown, ["slow", "fast"]).axes[0]
    (dots,) = (line for line in axes.get_lines() if line.get_marker() == "o")
    assert list(dots.get_ydata()) == pairs[:shown]
    expected = paired_ratio(pairs[:shown], [1.0] * shown)
    title = axes.get_title(loc="left")
    assert f"fast after {shown} rounds: {expected.value:.2f}x" in title
    if shown < 6:
        assert "too few rounds" in title
        assert not axes.patches
    else:
        (band,) = axes.patches
        low, high = band.get_extents().transformed(axes.transData.inverted()).intervaly
        assert (low, high) == pytest.approx((expected.low, expected.high))


def test_ratios_of_a_race_that_was_stopped_at_once() -> None:
    axes = charts.ratios([], 5, ["slow", "fast"]).axes[0]
    assert "No rounds yet" in axes.get_title(loc="left") + axes.get_title()


def test_one_example_of_each_class() -> None:
    images = tiny_data()
    axes = charts.example_images(images).axes
    assert [a.get_title() for a in axes] == list(images.classes)
    for label, a in enumerate(axes):
        shown = a.get_images()[0].get_array()
        first = int((images.train_labels == label).nonzero()[0])
        assert (shown == images.train_images[first, 0].numpy()).all()


def test_bad_charts_are_refused() -> None:
    axes = style.figure().subplots()
    for x, y in (([], []), ([1, 2], [1])):
        with pytest.raises(ValueError, match="curve 'a' must have as many x as y"):
            charts.lines(axes, {"a": (x, y)}, "t", "x", "y")
    for low, high in ((0, 1), (2, 1), (1, float("inf")), (float("nan"), 1)):
        with pytest.raises(ValueError, match="a logarithmic axis must go from above 0 up"):
            charts.plain_ticks(axes.xaxis, low, high)
    for columns in (0, 11):
        with pytest.raises(ValueError, match="columns must be from 1 to"):
            charts.example_images(tiny_data(), columns)
