"""Figures of notebook 14: what zeros cost and save, which channels stay, what a width costs."""

import math
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from labkit.compare import FORWARD_TIME, SIZE, Quantity, Samples
from labkit.compression.prune import ChannelGraph, predict_size
from labkit.compression.prune.choice import Keep
from labkit.measure import Timing
from labkit.widgets.charts import lines, name_rows, note
from labkit.widgets.style import (
    COLORS,
    GRID,
    MUTED,
    figure,
    label_axes,
    label_lines,
    line_style,
)


def sparsities(found: Mapping[float, Samples]) -> Figure:
    """Return accuracy and compressed size over the share of zeros, a line for each way.

    Args:
        found: {share of zeros: samples}, of the same arms; the baseline has all its weights.
    """
    fig = figure(9.2, 3.8)
    zeros = sorted(found)
    x = [100 * share for share in zeros]
    metric = found[zeros[0]].quantity()
    baseline, *ways = found[zeros[0]].arms
    panels = (
        (metric, f"{metric.name.capitalize()} (dashed: {baseline})", metric.header, None),
        (SIZE, "File after compression", "MB", 0.0),
    )
    for axes, (quantity, title, y_label, bottom) in zip(fig.subplots(1, 2), panels, strict=True):
        curves = {
            way: (x, [_value(found[share], way, quantity) for share in zeros]) for way in ways
        }
        whole = _value(found[zeros[0]], baseline, quantity)
        axes.axhline(whole, color=MUTED, linewidth=1.2, linestyle=(0, (2, 2)))
        lines(axes, curves, title, "zeros (%)", y_label, marks=True, bottom=bottom)
    return fig


def _value(samples: Samples, arm: str, quantity: Quantity) -> float:
    estimate = samples.value(arm, quantity)
    return math.nan if estimate is None else estimate.value


def kept(graph: ChannelGraph, keep: Keep, times: Mapping[str, Timing]) -> tuple[Figure, str]:
    """Return which part of each group stays, and what that does to operations and time.

    Args:
        graph: of the whole model.
        keep: the choice.
        times: of a forward pass of the whole model and of the smaller one, in turns.
    """
    fig = figure(9.2, 1.3 + 0.36 * len(keep))
    axes = fig.subplots()
    for row, chosen in enumerate(keep.values()):
        stays, of = int(chosen.sum()), len(chosen)
        axes.barh(row, of, 0.7, color=GRID)
        axes.barh(row, stays, 0.7, color=COLORS[0])
        note(axes, f"{stays} of {of}", (of, row), (6, 0), va="center")
    fewer = graph.flops / predict_size(graph, keep).flops
    title = f"Channels that stay (dark): {fewer:.2f}x fewer operations"
    label_axes(axes, title, "channels", "")
    name_rows(axes, list(keep))
    axes.set_xlim(0, 1.12 * max(map(len, keep.values())))
    verdict = Samples.of_timings(times, FORWARD_TIME).verdict(list(times)[1])
    return fig, f"{fewer:.2f} times fewer operations. {verdict}."


def widths(times: Mapping[int, Timing], vector: int = 8) -> Figure:
    """Return the time of a convolution over the channels that were kept.

    Args:
        times: {channels kept: times}.
        vector: a thin line stands at each multiple of it.
    """
    fig = figure(9.2, 3.8)
    axes = fig.subplots()
    channels = sorted(times)
    low, middle, high = ([1e3 * _quartile(times[n], q) for n in channels] for q in (1, 2, 3))
    axes.fill_between(channels, low, high, step="mid", color=COLORS[0], alpha=0.2, linewidth=0)
    axes.step(channels, middle, where="mid", **line_style(0))
    fair = [middle[-1] * n / channels[-1] for n in channels]
    axes.plot(channels, fair, **line_style(1))
    title = "One 3x3 convolution with fewer and fewer channels (band: middle half of the rounds)"
    label_axes(axes, title, f"channels kept (marks: multiples of {vector})", "milliseconds")
    _mark_multiples(axes, channels, vector)
    axes.set_ylim(0, 1.15 * max(middle))
    fig.draw_without_rendering()
    ends = ("measured", middle[-1] * 1.06), ("as the operations", fair[-1] * 0.94)
    label_lines(axes, [(name, y, line_style(i)["color"]) for i, (name, y) in enumerate(ends)])
    return fig


def _mark_multiples(axes: Axes, channels: list[int], vector: int) -> None:
    marks = [n for n in channels if n % vector == 0]
    axes.xaxis.set_major_locator(FixedLocator(marks))
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_xlim(channels[0], channels[-1])


def _quartile(timing: Timing, quarter: int) -> float:
    ordered = sorted(timing.seconds)
    return ordered[min(len(ordered) - 1, quarter * len(ordered) // 4)]
