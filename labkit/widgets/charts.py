"""Charts that several notebooks draw: named lines, named rows, the roofline, ratios, examples.

Each of the small functions draws into axes that the caller made, so that they combine.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from labkit.data import ImageData
from labkit.measure import Ceiling, Standing, paired_ratio
from labkit.widgets.style import (
    BACKGROUND,
    COLORS,
    INK,
    MARKERS,
    MUTED,
    figure,
    label_axes,
    label_lines,
    line_style,
    literal,
)

# -- parts ---------------------------------------------------------------------------------------


def lines(
    axes: Axes,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str,
    x_label: str,
    y_label: str,
    *,
    marks: bool = False,
    bottom: float | None = None,
) -> None:
    """Draw a line for each {name: (x, y)}, with its name where it ends on the right.

    Args:
        axes: of a figure in which nothing else moves afterwards: names stand where lines end.
        curves: in the order of their colours.
        title: of the axes.
        x_label: with its unit.
        y_label: with its unit.
        marks: whether each point gets a mark, for lines of few points.
        bottom: where the y axis begins; None leaves that to the data.

    Raises:
        ValueError: a curve without points, or with more x than y.
    """
    ends = []
    for number, (name, (x, y)) in enumerate(curves.items()):
        if not len(x) == len(y) > 0:
            raise ValueError(f"curve {name!r} must have as many x as y, got {len(x)} and {len(y)}")
        style = line_style(number)
        if marks:
            style |= {"marker": MARKERS[number % len(MARKERS)], "markersize": 5, "clip_on": False}
        axes.plot(x, y, **style)
        ends.append((name, y[-1], style["color"]))
    label_axes(axes, title, x_label, y_label)
    axes.margins(x=0)
    axes.set_ylim(bottom=bottom)
    whole: Any = axes.figure
    whole.draw_without_rendering()  # settles the layout, which the names' distances depend on
    label_lines(axes, ends)


def name_rows(axes: Axes, names: Sequence[str], **look: Any) -> None:
    """Name the rows of a chart of horizontal bars, the first one on top; without a grid.

    Args:
        axes: with row i at y = i.
        names: of the rows.
        look: of the names, such as `color`.
    """
    axes.set_yticks(
        range(len(names)), list(map(literal, names)), **{"fontsize": 10.5, "color": INK, **look}
    )
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False)


def note(
    axes: Axes,
    text: str,
    place: tuple[float, float],
    shift: tuple[float, float] = (0, 0),
    **look: Any,
) -> None:
    """Write beside a place.

    Args:
        axes: to write into.
        text: a few words.
        place: x and y in data, or as `xycoords` says, such as "axes fraction".
        shift: from there, in points.
        look: how matplotlib's `annotate` shall write, such as `ha="right"`.
    """
    axes.annotate(
        literal(text),
        place,
        xytext=shift,
        textcoords="offset points",
        **{"fontsize": 10.5, "color": INK, **look},
    )


def plain_ticks(axis: Axis, low: float, high: float) -> None:
    """Label a logarithmic axis with plain numbers between two limits: two of them at the least.

    Args:
        axis: `axes.xaxis` or `axes.yaxis`.
        low: where it begins, above zero.
        high: where it ends.

    Raises:
        ValueError: `low` is not above zero, or not below `high`.
    """
    if not 0 < low < high < math.inf:
        raise ValueError(f"a logarithmic axis must go from above 0 up, got {low} to {high}")
    ticks: list[float] = []
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for firsts in ((1,), (1, 3), (1, 2, 5), range(1, 10)):
        if len(ticks) < 2:  # one number alone shows no scale
            numbers = [first * 10.0**power for power in powers for first in firsts]
            ticks = [number for number in numbers if low <= number <= high]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


# -- figures -------------------------------------------------------------------------------------


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
    label_axes(axes, f"The roof of this machine ({kind})", "FLOP per byte moved", "GFLOP/s")
    axes.set(xscale="log", yscale="log")
    dtypes = list(getattr(ceiling, kind))
    left = min([0.3, *(0.5 * standing.intensity for standing, _ in points.values())])
    right = 12 * max(ceiling.ridge(dtype, kind) for dtype in dtypes)
    _draw_roofs(axes, ceiling, kind, numpy.geomspace(left, right, 200))
    _draw_steps(axes, points, {dtype: line_style(i)["color"] for i, dtype in enumerate(dtypes)})
    plain_ticks(axes.xaxis, *axes.get_xlim())
    plain_ticks(axes.yaxis, *axes.get_ylim())
    return fig


def _draw_roofs(axes: Axes, ceiling: Ceiling, kind: str, intensity: Any) -> None:
    """Draw a roof for each dtype: what bandwidth allows up to the corner, the peak behind it."""
    bandwidth = ceiling.bandwidth.value
    for number, dtype in enumerate(getattr(ceiling, kind)):
        roof = numpy.minimum(ceiling.peak(dtype, kind) / 1e9, bandwidth * intensity)
        style = line_style(number)
        axes.plot(intensity, roof, **style)
        bold = {"ha": "right", "color": style["color"], "fontweight": "bold"}
        note(axes, f"{dtype}: {roof[-1]:.0f} GFLOP/s", (intensity[-1], roof[-1]), (-4, 4), **bold)
    start = (intensity[0], bandwidth * intensity[0])
    note(axes, f"slope: {bandwidth:.0f} GB/s", start, (14, 2), color=MUTED)


def _draw_steps(
    axes: Axes, points: Mapping[str, tuple[Standing, str]], colors: Mapping[str, str]
) -> None:
    """Draw measured steps in the colours of their roofs, from the highest to the lowest."""
    by_height = sorted(points.items(), key=lambda item: -item[1][0].achieved)
    height = math.inf  # of the text above, so that labels do not meet
    ground = {"facecolor": BACKGROUND, "alpha": 0.85, "linewidth": 0, "pad": 1.5}
    for number, (label, (standing, dtype)) in enumerate(by_height):
        place, marker = (standing.intensity, standing.achieved), MARKERS[number % len(MARKERS)]
        axes.plot(*place, marker, color=colors[dtype], ms=9)
        height = min(standing.achieved, height / 1.45)
        beside = (standing.intensity * 1.15, height)
        note(axes, f"{label}: {standing.achieved:.0f}", beside, va="center", bbox=ground)


def ratios(pairs: Sequence[float], shown: int, names: Sequence[str]) -> Figure:
    """Return the speed ratio of each round as a dot, with the interval that they give together.

    Args:
        pairs: seconds of the baseline / seconds of the candidate, one a round.
        shown: how many rounds to use, from the first.
        names: of baseline and candidate.
    """
    fig = figure(9.2, 3.2)
    axes = fig.subplots()
    used = list(pairs[:shown])
    if not used:
        label_axes(axes, "No rounds yet: let the race run a little", "round", "ratio of times")
        return fig
    ratio = paired_ratio(used, [1.0] * len(used))
    bounded = math.isfinite(ratio.high)
    interval = f"95 % {ratio.low:.2f} to {ratio.high:.2f}"
    title = f"{names[1]} after {len(used)} rounds: {ratio.value:.2f}x"
    title += f" ({interval if bounded else 'too few rounds for an interval'})"
    label_axes(axes, title, "round", f"time of {names[0]} / time of {names[1]}")
    axes.axhline(1.0, color=MUTED, linewidth=1.2)
    axes.plot(range(1, len(used) + 1), used, "o", color=COLORS[0], alpha=0.45, markersize=5)
    if bounded:
        axes.axhspan(ratio.low, ratio.high, color=COLORS[1], alpha=0.35, linewidth=0)
    axes.axhline(ratio.value, color=COLORS[1], linewidth=2)
    axes.set_xlim(0, len(pairs) + 1)
    ordered, tail = sorted(pairs), len(pairs) // 20  # a few rounds lie far out: do not show them
    axes.set_ylim(0.9 * min(1.0, ordered[tail]), 1.1 * max(1.0, ordered[-1 - tail]))
    label_lines(axes, [("median", ratio.value, COLORS[1]), ("the same", 1.0, MUTED)])
    return fig


def example_images(images: ImageData, columns: int = 10) -> Figure:
    """Return one training image of each class in a row, with its name.

    Args:
        images: grey images.
        columns: classes shown.

    Raises:
        ValueError: `columns` is not from 1 to the number of classes.
    """
    if not 1 <= columns <= len(images.classes):
        raise ValueError(f"columns must be from 1 to {len(images.classes)}, got {columns}")
    fig = figure(9.2, 1.3)
    for axes, label in zip(fig.subplots(1, columns), range(columns), strict=True):
        index = int((images.train_labels == label).nonzero()[0])
        axes.imshow(images.train_images[index, 0].numpy(), cmap="gray_r")
        axes.set_title(literal(images.classes[label]), fontsize=9, color=INK)
        axes.set_axis_off()
    return fig
