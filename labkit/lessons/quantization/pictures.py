"""Figures of notebook 15: a layer's histogram with its grid, and the noise of each layer."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from labkit.compression.quantize.layer_noise import LayerError
from labkit.widgets.charts import name_rows, plain_ticks
from labkit.widgets.style import COLORS, GRID, INK, MUTED, figure, label_axes, line_style

BINS = 80
EDGE = 1.3
"""How far the axis of the noise goes beyond the best layer: some have next to no noise."""
FEW = 16
"""So many integers can be drawn as strokes; more would be a wall."""


def clipping(
    values: Tensor,
    outcomes: Mapping[int, tuple[float, float]],
    bits: int,
    share: int = 100,
) -> tuple[Figure, str]:
    """Return where a clipping range cuts a tensor's values, and what error and accuracy follow.

    Args:
        values: float (n,).
        outcomes: {range in percent of the largest value: (error in percent of the values' length,
            correct answers in percent)}.
        bits: of the grid.
        share: the chosen range, a key of `outcomes`.
    """
    fig = figure(9.2, 3.9)
    histogram, error, accuracy = fig.subplot_mosaic(
        [["histogram", "error"], ["histogram", "accuracy"]], width_ratios=[1.25, 1]
    ).values()
    largest = float(values.abs().max())
    end, both = share / 100 * largest, bool(values.min() < 0)
    _histogram(histogram, values, largest, end, bits)
    shares = sorted(outcomes)
    titles = ("Error of the values", "Accuracy of the network")
    for number, axes in enumerate((error, accuracy)):
        style = {**line_style(number), "marker": "os"[number], "markersize": 4}
        axes.plot(shares, [outcomes[s][number] for s in shares], **style)
        axes.plot(share, outcomes[share][number], "os"[number], color=style["color"], ms=11)
        axes.axvline(share, color=MUTED, linewidth=1.2)
        label_axes(axes, titles[number], "", "% of their length" if number == 0 else "correct, %")
        axes.set_xlim(0, shares[-1] + shares[0])
    error.set_yscale("log")
    errors = [outcome[0] for outcome in outcomes.values()]
    error.set_ylim(min(errors) / 1.3, max(errors) * 1.3)
    plain_ticks(error.yaxis, *error.get_ylim())
    accuracy.set_ylim(0, 100)
    accuracy.set_xlabel("clipped at … % of the largest value", fontsize=10.5, color=MUTED)
    outside = float((values.abs() > end).float().mean())
    step = end / (2 ** (bits - 1) - 1 if both else 2**bits - 1)
    lost, right = outcomes[share]
    smallest = min(outcomes, key=lambda other: outcomes[other][0])
    return fig, (
        f"{bits} bits, clipped at {end:.3g}: {outside:.2%} of the values lie outside, a step is "
        f"{step:.2g}. The values' error is {lost:.1f} % (it is smallest at {smallest} % of the "
        f"largest value), and {right:.1f} % of the answers are right."
    )


def _histogram(axes: Axes, values: Tensor, largest: float, end: float, bits: int) -> None:
    low = -1.6 * largest if values.min() < 0 else 0.0
    edges = numpy.linspace(low, 1.6 * largest, BINS + 1)
    nonzero = values[values != 0]  # ReLU's zeros are exact, and would hide the others
    percent = 100 * numpy.histogram(nonzero.numpy(), edges)[0] / max(1, len(nonzero))
    axes.stairs(percent, edges, fill=True, color=COLORS[0], alpha=0.75)
    top = 1.25 * percent.max()
    for edge in (-end, end) if low else (end,):
        axes.axvline(edge, color=COLORS[1], linewidth=2.2)
        beyond = (low, edge) if edge < 0 else (edge, edges[-1])
        axes.axvspan(*beyond, color=COLORS[1], alpha=0.12, linewidth=0)
    if 2**bits <= FEW:
        steps = 2 ** (bits - 1) - 1 if low else 2**bits - 1
        first = -steps - 1 if low else 0
        strokes = [end / steps * k for k in range(first, steps + 1)]
        axes.vlines([x for x in strokes if x >= low], 0, 0.06 * top, color=INK, linewidth=1.6)
    words = "value (shaded: clipped" + (", strokes: the grid)" if 2**bits <= FEW else ")")
    label_axes(axes, "The values, zeros left out", words, "% of them")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, top)


def layer_noise(errors: Sequence[LayerError]) -> tuple[Figure, str]:
    """Return how loud each layer's output is against its rounding noise, and the words for it.

    Args:
        errors: of the layers, in their order.
    """
    fig = figure(9.2, 1.3 + 0.31 * len(errors))
    axes = fig.subplots()
    rows = range(len(errors))
    worst = min(rows, key=lambda row: errors[row].both)
    edge = EDGE * max(1.0, *(error.both for error in errors if math.isfinite(error.both)))
    axes.barh(rows, [min(error.both, edge) for error in errors], 0.55, color=GRID)
    axes.barh(worst, min(errors[worst].both, edge), 0.55, color=COLORS[4], alpha=0.6)
    for number, kind in enumerate(("weights", "activations")):
        decibels = [min(getattr(error, kind), edge) for error in errors]
        style: dict[str, Any] = {"color": COLORS[number], "ms": 8, "clip_on": False}
        axes.plot(decibels, rows, "os"[number], label=f"{kind} alone", **style)
    names = [error.name for error in errors]
    label_axes(
        axes, "Signal to noise of each layer, bars: both", "decibels (at the edge: or more)", ""
    )
    name_rows(axes, names)
    axes.set_xlim(0, edge)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.legend(loc="lower left", bbox_to_anchor=(0.55, 1.0), ncols=2, frameon=False, fontsize=10)
    told = ", ".join(f"{error.name} {error.both:.0f} dB" for error in errors)
    return fig, f"Signal to noise of each layer with weights and inputs rounded: {told}."
