"""Figures of notebook 03: number formats, gradients under fp16, and how the loss scale moves."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from operator import itemgetter

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from labkit.measure.formats import FORMATS, Format
from labkit.measure.gradients import Fates, fates
from labkit.widgets.charts import lines, note
from labkit.widgets.style import (
    COLORS,
    INK,
    MUTED,
    figure,
    label_axes,
    line_style,
)

WINDOW = 1 / 32  # neighbors are shown this far around the value, relative to it
FADED = "#8C959F"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power_of_two(power: int) -> str:
    """Return 2 with a raised exponent, as text."""
    return f"2{str(power).translate(_RAISED)}"


def neighbors(format: str = "fp16", power: int = -8) -> tuple[Figure, str]:
    """Return where 2**power lies in the range of each format, and the numbers around it.

    Args:
        format: "fp32", "bf16" or "fp16"; the one that stands out and that the sentence is about.
        power: of two.
    """
    fig = figure(9.2, 4.6)
    above, below = fig.subplots(2, 1)
    for row, form in enumerate(reversed(FORMATS.values())):
        color = COLORS[0] if form.name == format else FADED
        _range(above, row, form, color)
        _around(below, row, form, power, color)
    above.axvline(power, color=COLORS[1], linewidth=2)
    above.set_xlim(-152, 132)
    label_axes(above, f"Range, with {power_of_two(power)} in it", "power of two", "pale: subnormal")
    below.set_xlim(1 - WINDOW * 1.02, 1 + WINDOW * 1.02)
    label_axes(below, f"Every number near {power_of_two(power)}", "times the value", "")
    for axes in (above, below):
        axes.set_ylim(-0.6, 2.6)
        axes.set_yticks(range(3), [form.name for form in reversed(FORMATS.values())])
        axes.grid(visible=False)
    above.set_xticks(range(-140, 121, 20))
    return fig, _sentence(FORMATS[format], power)


def _range(axes: Axes, row: int, form: Format, color: str) -> None:
    lowest = math.log2(form.smallest)
    axes.barh(row, form.highest + 1 - form.lowest, 0.5, form.lowest, color=color)
    axes.barh(row, form.lowest - lowest, 0.5, lowest, color=color, alpha=0.35)


def _around(axes: Axes, row: int, form: Format, power: int, color: str) -> None:
    """Draw a stroke for each number of the format between 1 - WINDOW and 1 + WINDOW times 2**p."""
    value = 2.0**power
    fate = form.fate(value)
    if fate in ("zero", "infinite"):
        words = {"zero": "becomes 0", "infinite": "becomes infinity"}[fate]
        axes.text(1, row, words, ha="center", va="center", color=color, fontsize=10.5)
        return
    up, down = form.spacing(value), form.spacing(value * (1 - WINDOW))
    if up < value * 1e-5:
        axes.barh(row, 2 * WINDOW, 0.5, 1 - WINDOW, color=color)
        return
    strokes = [1 + step * up / value for step in range(int(WINDOW * value / up) + 1)]
    strokes += [1 - step * down / value for step in range(int(WINDOW * value / down) + 1)]
    axes.vlines(strokes, row - 0.25, row + 0.25, color=color, linewidth=1.6)


def _sentence(form: Format, power: int) -> str:
    value = 2.0**power
    name = f"{form.name}: {power_of_two(power)} = {value:.3g}"
    fate = form.fate(value)
    if fate == "zero":
        return f"{name} becomes 0: the smallest number is {form.smallest:.3g}."
    if fate == "infinite":
        return f"{name} becomes infinity: the largest number is {form.largest:.3g}."
    gap = form.spacing(value)
    text = f"{name} is exact, and the next number is {gap:.2g} above it ({gap / value:.2g} of it)"
    if fate == "normal":
        return f"{text}."
    kept = round(math.log2(value / gap))
    return f"{text}. Subnormal: {kept} of {form.fraction_bits} fraction bits are left."


def gradients(magnitudes: Mapping[str, Tensor], power: int = 0) -> tuple[Figure, str]:
    """Return how large the gradients are and what becomes of them in fp16.

    Args:
        magnitudes: {"activations": float32 (n,), "weights": float32 (m,)}, positive; see
            `labkit.measure.gradients`.
        power: the loss is multiplied by 2**power.
    """
    form = FORMATS["fp16"]
    fig = figure(9.2, 3.9)
    axes = fig.subplots()
    edges = numpy.arange(-60, 41)
    lines = []
    for number, (name, sizes) in enumerate(magnitudes.items()):
        percent = numpy.zeros(len(edges) - 1)
        for part in numpy.array_split(sizes.numpy(), 16):  # in parts, for the memory's sake
            counts, _ = numpy.histogram(numpy.log2(part) + power, edges)
            percent += 100 * counts / len(sizes)
        axes.stairs(percent, edges, **{**line_style(number), "linewidth": 2.4})
        top = int(percent.argmax())
        lines.append((name, edges[top], percent[top], line_style(number)["color"]))
    highest = 1.3 * max(height for *_, height, _ in lines)
    sides = ("right", "left")  # so that two names never meet
    for side, (name, x, height, color) in zip(
        sides, sorted(lines, key=itemgetter(1)), strict=False
    ):
        font = {"color": color, "fontsize": 10.5, "fontweight": "bold"}
        axes.text(x, height * 1.03, name, ha=side, **font)
    label_axes(
        axes,
        f"Gradients of the network, loss × {power_of_two(power)}",
        "size of a gradient, power of two",
        "% of the gradients",
    )
    axes.set_ylim(0, highest)
    axes.set_xlim(-48, 28)
    borders = (-48, math.log2(form.smallest) - 1, form.lowest, form.highest + 1, 28)
    words = ("becomes 0", "subnormal", "fp16 keeps all bits", "infinite")
    for (low, high), word in zip(pairwise(borders), words, strict=True):
        if word != "fp16 keeps all bits":
            lost = word in ("becomes 0", "infinite")
            axes.axvspan(low, high, color=COLORS[1 if lost else 4], alpha=0.16, linewidth=0)
        axes.text((low + high) / 2, 0.93 * highest, word, ha="center", color=INK, fontsize=10.5)
    return fig, " ".join(_fate_words(name, fates(m, 2.0**power)) for name, m in magnitudes.items())


def _fate_words(name: str, shares: Fates) -> str:
    return (
        f"{name.capitalize()}: {shares.zero:.2%} become 0, {shares.subnormal:.2%} subnormal, "
        f"{shares.infinite:.2%} infinite."
    )


def small_losses(losses: Mapping[str, Mapping[int, Tensor]]) -> Figure:
    """Return the loss on the test images after trainings on a loss divided by a power of two.

    Args:
        losses: {precision: {k: loss of each test image, after training on loss / 2**k}}.
    """
    fig = figure(9.2, 3.8)
    lines(
        fig.subplots(),
        {
            name: (list(of), [each.mean().item() for each in of.values()])
            for name, of in losses.items()
        },
        "The same training, loss divided and learning rate multiplied by 2ᵏ",
        "k",
        "loss on the test images",
        marks=True,
        bottom=0,
    )
    return fig


def scale_history(scales: Sequence[float], skipped: Sequence[bool]) -> Figure:
    """Return the loss scale of each step, with a cross where the step was left out.

    Args:
        scales: the scale that each step's loss was multiplied by.
        skipped: whether the step changed no weight.
    """
    fig = figure(9.2, 3.2)
    axes = fig.subplots()
    powers = [math.log2(scale) for scale in scales]
    axes.step(range(len(powers)), powers, where="mid", **line_style(0))
    crosses = [index for index, left_out in enumerate(skipped) if left_out]
    axes.plot(crosses, [powers[index] for index in crosses], "X", color=COLORS[1], ms=9)
    label_axes(axes, "How the loss scale finds its height", "step", "loss scale, power of two")
    axes.set_xlim(-1, len(powers))
    axes.set_ylim(min(powers) - 1, max(powers) + 1)
    words, color = ("✕ step", COLORS[1]) if crosses else ("no step", MUTED)
    note(
        axes, f"{words} left out", (1, 1), (0, 9), xycoords="axes fraction", ha="right", color=color
    )
    return fig
