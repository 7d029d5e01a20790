"""Figures of notebook 01: a step's parts for two batch sizes, and losses after a resume."""

from collections.abc import Mapping, Sequence
from statistics import median

from matplotlib.figure import Figure

from labkit.measure.running_average import running_averages
from labkit.training import Phases
from labkit.widgets.charts import lines, note
from labkit.widgets.style import INK, MUTED, figure, label_axes, label_lines, line_style


def batch_bars(taken: Mapping[int, Sequence[Phases]]) -> Figure:
    """Return microseconds an image as stacked bars, one a batch size.

    Args:
        taken: {batch size: phases of each step}; the last bar carries the names.
    """
    fig = figure(9.2, 3.6)
    axes = fig.subplots()
    names = [f"{size} images a step" for size in taken]
    bottoms = [0.0] * len(taken)
    middles = []
    for number, part in enumerate(Phases._fields[:4]):
        heights = [
            1e6 * median(getattr(step, part) for step in phases) / size
            for size, phases in taken.items()
        ]
        color = line_style(number)["color"]
        axes.bar(names, heights, 0.5, bottom=bottoms, color=color, edgecolor="white")
        middles.append((part, bottoms[-1] + heights[-1] / 2, color))
        bottoms = [b + h for b, h in zip(bottoms, heights, strict=True)]
    label_axes(axes, "Time for one image", "", "microseconds")
    axes.set_xticks(range(len(names)), names, fontsize=10.5, color=INK)
    for place, total in enumerate(bottoms):
        note(axes, f"{total:.0f}", (place, total), (0, 3), ha="center", fontweight="bold")
    axes.set_xlim(-0.6, len(names) - 0.6)
    axes.set_ylim(0, 1.12 * max(bottoms))
    fig.draw_without_rendering()  # settles the layout, which the labels' distances depend on
    label_lines(axes, middles)
    return fig


def resumed(whole: Sequence[float], continued: Mapping[str, Sequence[float]]) -> Figure:
    """Return the losses of an uninterrupted run, and of runs that were resumed on its way.

    Args:
        whole: loss of each step.
        continued: {name: losses after the resume}; all end where `whole` ends.
    """
    fig = figure(9.2, 3.4)
    axes = fig.subplots()
    curves = {}
    for name, losses in {"never killed": whole, **continued}.items():
        # What came before the kill is the same for all, so it is smoothed in.
        before = len(whole) - len(losses)
        curve = running_averages([*whole[:before], *losses])[before:]
        curves[name] = (range(before + 1, len(whole) + 1), curve)
    saved = len(whole) - max(map(len, continued.values()))
    axes.axvline(saved, color=MUTED, linewidth=1.2)
    above = {"xycoords": ("data", "axes fraction"), "color": MUTED}
    note(axes, "checkpoint", (saved, 1), (5, -10), **above)
    lines(axes, curves, "After the kill", "step", "cross-entropy, smoothed (nats)")
    return fig
