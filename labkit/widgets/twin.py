"""The static twin: what stays of a live view when nothing is alive any more.

A saved notebook is read on GitHub, on nbviewer, in a mail, or in JupyterLab the next morning. No
kernel runs there, and a widget without its kernel is an empty box. So at the end of a run the live
view is replaced by a picture of the curves with the table of figures, and by a text of the same
table where no picture shows. It costs some tens of kilobytes in the notebook; saving the widget's
state instead would cost more, and GitHub refuses some of it.
"""

import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from labkit.table import Table, one_line
from labkit.watch import History, Panel
from labkit.widgets import scatter, style

_HEIGHTS = {"lines": 2.7, "stacked": 2.7, "scatter": 4.2, "lane": 1.25}  # in inches, as all here
_ROW, _EDGE = 0.3, 0.12  # heights
_WIDTH, _CHARACTER, _BETWEEN = 9.2, 0.092, 0.32  # widths
_LINE = 100  # characters


def twin(
    panels: Sequence[Panel], history: History, table: Table | None, headline: str
) -> style.Picture:
    """Return picture and text of a run.

    Args:
        panels: what was shown.
        history: all its points.
        table: the last figures.
        headline: how it ended, such as "Finished. Seed 3 of 3."
    """
    return style.picture(
        draw(panels, history, table, headline), alt=as_text(panels, history, table, headline)
    )


def draw(panels: Sequence[Panel], history: History, table: Table | None, headline: str) -> Figure:
    """Return one row of axes for each panel, one column for each x label, and the table."""
    columns = max(len(panel.x_labels) for panel in panels)
    heights = [_HEIGHTS[panel.kind] for panel in panels]
    above = sum(heights)
    rows = [table.headers, *table.rows] if table else []
    rows = [tuple(map(one_line, row)) for row in rows]
    last = textwrap.wrap(one_line(f"{headline} {table.note if table else ''}"), _LINE)
    below = _ROW * (len(rows) + len(last)) + 2 * _EDGE
    fig = style.figure(_WIDTH, above + below)
    parts: Any = fig.subfigures(2, 1, height_ratios=[above, below])
    top, bottom = parts
    for part in parts:
        part.set_facecolor(style.BACKGROUND)
    grid = top.add_gridspec(len(panels), columns, height_ratios=heights)
    labels, lanes = [], []
    for index, panel in enumerate(panels):
        wide = len(panel.x_labels) < columns
        for choice in range(len(panel.x_labels)):
            axes = top.add_subplot(grid[index, :] if wide else grid[index, choice])
            labels.append(_draw_panel(axes, index, panel, history, choice))
            if panel.kind == "lane":
                lanes.append(axes)
    _align(lanes)
    _draw_table(bottom, rows, last, below)
    fig.draw_without_rendering()  # settles the layout, which the labels' distances depend on
    for write in labels:
        write()
    return fig


def as_text(panels: Sequence[Panel], history: History, table: Table | None, headline: str) -> str:
    """Return headline and table as plain text, or where the curves ended if there is no table."""
    ends = [_last_values(index, panel, history) for index, panel in enumerate(panels)]
    return "\n".join([headline, *([str(table)] if table else ends)])


def _last_values(index: int, panel: Panel, history: History) -> str:
    ends, last = [], -3 if panel.kind == "scatter" else -1
    for series, name in enumerate(panel.series):
        _, y = history.curve(index, series)
        ends.append(f"{name} {y[last]:.4g}" if len(y) else f"{name} without a point")
    return f"{panel.title}, {panel.y_label}: " + ", ".join(ends)


def _draw_panel(
    axes: Axes, index: int, panel: Panel, history: History, choice: int
) -> Callable[[], None]:
    """Draw the curves or points; return what writes their names."""
    if panel.kind == "lane":
        style.label_axes(axes, f"{panel.title}: {panel.y_label}", panel.x_labels[choice], "")
    else:
        style.label_axes(axes, panel.title, panel.x_labels[choice], panel.y_label)
    if panel.kind == "scatter":
        spots = scatter.spots_in(history, index, panel)
        upward = panel.higher_is_better
        scatter.draw(axes, spots, higher_is_better=upward)
        return partial(scatter.label, axes, spots, higher_is_better=upward)
    curves = [history.curve(index, series, choice) for series in range(len(panel.series))]
    draw = _draw_lines if panel.kind == "lines" else _draw_bands
    axes.margins(x=0)
    labels = draw(axes, panel.series, curves)
    if labels:
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
    return partial(style.label_lines, axes, labels)


def _align(lanes: Sequence[Axes]) -> None:
    """Give all lanes one scale, and the name of the x axis to the last one."""
    for axes in lanes:
        axes.set_xlim(0, max(each.get_xlim()[1] for each in lanes))
        axes.set_ylim(0, max(each.get_ylim()[1] for each in lanes))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=2, steps=[1, 2, 5, 10]))
        if axes is not lanes[-1]:
            axes.set_xlabel("")


def _draw_lines(axes: Axes, names: Sequence[str], curves: Sequence[Any]) -> list[Any]:
    labels = []
    for i, (name, (x, y)) in enumerate(zip(names, curves, strict=True)):
        look, known = style.line_style(i), numpy.isfinite(y)
        if not known.all():  # several seeds
            look |= {"linewidth": 1.5, "alpha": 0.85}
        axes.plot(x, y, marker="o" if len(x) <= 30 else None, markersize=4, **look)
        if known.any():
            labels.append((name, float(y[known][-1]), look["color"]))
    return labels


def _draw_bands(axes: Axes, names: Sequence[str], curves: Sequence[Any]) -> list[Any]:
    length = min(len(x) for x, _ in curves)
    if not length:
        return []
    heights = numpy.stack([y[:length] for _, y in curves])
    axes.stackplot(
        curves[0][0][:length],
        heights,
        colors=[style.line_style(i)["color"] for i in range(len(names))],
        edgecolor=style.BACKGROUND,
        linewidth=1.5,
    )
    middles = heights[:, -1].cumsum() - heights[:, -1] / 2
    return [
        (name, float(y), style.line_style(i)["color"])
        for i, (name, y) in enumerate(zip(names, middles, strict=True))
    ]


def _draw_table(
    part: Any, rows: Sequence[Sequence[str]], last: Sequence[str], height: float
) -> None:
    """Write the rows, the headers first, and the last lines into `part`, `height` inches high."""
    left = _EDGE / _WIDTH
    ends = _column_ends(rows)
    shrink = min(1.0, (_WIDTH - 2 * _EDGE) / max(ends, default=1))
    ends = [shrink * x for x in ends]
    for line, row in enumerate(rows):
        y = 1 - (_EDGE + (line + 0.5) * _ROW) / height
        look: dict[str, Any] = {"color": style.INK, "fontsize": 10.5 * shrink, "va": "center"}
        look["fontweight"] = "normal" if line else "bold"
        for i, (entry, x) in enumerate(zip(row, ends, strict=True)):
            where = x / _WIDTH if i else left
            part.text(where, y, style.literal(entry), ha="right" if i else "left", **look)
        under = y - 0.5 * _ROW / height
        rule = Line2D([left, ends[-1] / _WIDTH], [under, under], color=style.GRID, linewidth=0.8)
        part.add_artist(rule)
    for line, text in enumerate(last, start=len(rows)):
        y = 1 - (_EDGE + (line + 0.6) * _ROW) / height
        part.text(
            left, y, style.literal(text), va="center", fontsize=10.5, color=style.MUTED, wrap=True
        )


def _column_ends(rows: Sequence[Sequence[str]]) -> list[float]:
    """Right edges of the columns in inches, from the number of characters in each."""
    ends, x = [], _EDGE
    for i, column in enumerate(zip(*rows, strict=True)):
        x += max(len(entry) for entry in column) * _CHARACTER + (_BETWEEN if i else 0)
        ends.append(x)
    return ends
