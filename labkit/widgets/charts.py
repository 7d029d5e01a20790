"""Figures that several notebooks show: example images, the roofline."""

import math
from collections.abc import Mapping, Sequence

import numpy
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from labkit.data import ImageData
from labkit.measure import Ceiling, Standing
from labkit.measure.statistics import median_interval
from labkit.widgets.style import (
    BACKGROUND,
    COLORS,
    INK,
    MUTED,
    figure,
    label_axes,
    label_lines,
    line_style,
)


def example_images(images: ImageData, columns: int = 10) -> Figure:
    """Return one training image of each class in a row, with its name.

    Args:
        images: grey images.
        columns: classes shown.
    """
    fig = figure(9.2, 1.3)
    for axes, label in zip(fig.subplots(1, columns), range(columns), strict=True):
        index = int((images.train_labels == label).nonzero()[0])
        axes.imshow(images.train_images[index, 0].numpy(), cmap="gray_r")
        axes.set_title(images.classes[label], fontsize=9, color=INK)
        axes.set_axis_off()
    return fig


def roofline(
    ceiling: Ceiling, points: Mapping[str, tuple[Standing, str]], kind: str = "convolution"
) -> Figure:
    """Return the machine's roofline with measured steps under it.

    Args:
        ceiling: gives one roof for each dtype.
        points: {label: (standing, dtype)}.
        kind: "convolution" or "matmul": which peak is the flat part of the roof.
    """
    fig = figure(9.2, 4.2)
    axes = fig.subplots()
    dtypes = list(getattr(ceiling, kind))
    ridges = [ceiling.ridge(dtype, kind) for dtype in dtypes]
    low = min([0.3, *(0.5 * standing.intensity for standing, _ in points.values())])
    intensity = numpy.geomspace(low, 12 * max(ridges), 200)
    for number, dtype in enumerate(dtypes):
        roof = numpy.minimum(ceiling.peak(dtype, kind) / 1e9, ceiling.bandwidth.value * intensity)
        style = line_style(number)
        axes.plot(intensity, roof, **style)
        axes.annotate(
            f"{dtype}: {roof[-1]:.0f} GFLOP/s",
            (intensity[-1], roof[-1]),
            xytext=(-4, 4),
            textcoords="offset points",
            ha="right",
            color=style["color"],
            fontsize=10.5,
            fontweight="bold",
        )
    label_axes(axes, f"The roof of this machine ({kind})", "FLOP per byte moved", "GFLOP/s")
    by_height = sorted(points.items(), key=lambda item: -item[1][0].achieved)
    height = numpy.inf  # of the text above, so that labels do not meet
    for number, (label, (standing, dtype)) in enumerate(by_height):
        color = line_style(dtypes.index(dtype))["color"]
        axes.plot(standing.intensity, standing.achieved, "osD^v"[number % 5], color=color, ms=9)
        height = min(standing.achieved, height / 1.45)
        axes.annotate(
            f"{label}: {standing.achieved:.0f}",
            (standing.intensity * 1.15, height),
            va="center",
            fontsize=10.5,
            color=INK,
            bbox={"facecolor": BACKGROUND, "alpha": 0.85, "linewidth": 0, "pad": 1.5},
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator())
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(NullLocator())
    axes.annotate(
        f"slope: {ceiling.bandwidth.value:.0f} GB/s",
        (intensity[0], ceiling.bandwidth.value * intensity[0]),
        xytext=(14, 2),
        textcoords="offset points",
        color=MUTED,
        fontsize=10.5,
    )
    return fig


def ratios(pairs: Sequence[float], shown: int, names: Sequence[str]) -> Figure:
    """Return the speed ratio of each round as a dot, with the interval that they give together.

    Args:
        pairs: seconds of the baseline / seconds of the candidate, one a round.
        shown: how many rounds to use, from the first.
        names: of baseline and candidate.
    """
    used = list(pairs[:shown])
    logs = median_interval([math.log(ratio) for ratio in used])
    value, low, high = (math.exp(x) for x in (logs.value, logs.low, logs.high))
    bounded = math.isfinite(logs.high)
    interval = f"95 % {low:.2f} to {high:.2f}" if bounded else "too few rounds for an interval"
    fig = figure(9.2, 3.2)
    axes = fig.subplots()
    title = f"{names[1]} after {len(used)} rounds: {value:.2f}x ({interval})"
    label_axes(axes, title, "round", f"time of {names[0]} / time of {names[1]}")
    axes.axhline(1.0, color=MUTED, linewidth=1.2)
    axes.plot(range(1, len(used) + 1), used, "o", color=COLORS[0], alpha=0.45, markersize=5)
    if bounded:
        axes.axhspan(low, high, color=COLORS[1], alpha=0.35, linewidth=0)
    axes.axhline(value, color=COLORS[1], linewidth=2)
    axes.set_xlim(0, len(pairs) + 1)
    ordered, tail = sorted(pairs), len(pairs) // 20  # a few rounds lie far out: do not show them
    axes.set_ylim(0.9 * min(1.0, ordered[tail]), 1.1 * max(1.0, ordered[-1 - tail]))
    label_lines(axes, [("median", value, COLORS[1]), ("the same", 1.0, MUTED)])
    return fig
