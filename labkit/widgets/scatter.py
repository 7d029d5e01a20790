"""Points with intervals both ways, each with its name beside it, and the front of the best.

A cloud of points with a legend makes the reader look to and fro. Here the name stands at its point:
of forty places around it the one is taken that hides least, the nearest first, with a thin line to
the point if it had to go far. Points differ in colour, in shape and by their name, so none of the
three is needed alone.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple, TypeAlias

import numpy
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from labkit.compare.front import unbeaten
from labkit.watch import History, Panel
from labkit.widgets import style

FRONT = "line: front of the point estimates"
REACHES = (0.13, 0.24, 0.36, 0.5, 0.66)
"""Distances of a name from its point, in inches."""
NEAR = 0.24
SIDES = ((0.7, 0.8), (0.7, -0.8), (-0.7, 0.8), (-0.7, -0.8), (1, 0), (-1, 0), (0, 1.2), (0, -1.2))
RADIUS = 0.08
"""Of a point, in inches."""

Triple: TypeAlias = tuple[float, float, float]
Box: TypeAlias = tuple[float, float, float, float]


class Spot(NamedTuple):
    """A point: number and name of its series; value, low and high of x and of y."""

    series: int
    name: str
    x: Triple
    y: Triple


def spots_in(history: History, index: int, panel: Panel) -> list[Spot]:
    """Return the spots of a panel: the last three rows of each series."""
    curves = [history.curve(index, series) for series in range(len(panel.series))]
    return [
        Spot(series, panel.series[series], tuple(x[-3:].tolist()), tuple(y[-3:].tolist()))
        for series, (x, y) in enumerate(curves)
        if len(x)
    ]


def draw(axes: Axes, spots: Sequence[Spot], *, higher_is_better: bool = True) -> None:
    """Draw points, bars and front; `label` writes the names once the layout is settled."""
    if not spots:
        return
    _scale(axes, [spot.x[0] for spot in spots])
    for spot in spots:
        color = style.COLORS[spot.series % len(style.COLORS)]
        marker = style.MARKERS[spot.series % len(style.MARKERS)]
        for x1, y1, x2, y2 in _bars(spot):
            axes.plot((x1, x2), (y1, y2), color=color, linewidth=1.8, alpha=0.6, zorder=2)
        axes.plot(spot.x[0], spot.y[0], marker, color=color, markersize=9, zorder=3)
    _draw_front(axes, spots, higher_is_better)


def _bars(spot: Spot) -> Iterator[Box]:
    """Yield the ends of the bars, where there is an interval."""
    (x, left, right), (y, bottom, top) = spot.x, spot.y
    if numpy.isfinite(spot.x).all():
        yield left, y, right, y
    if numpy.isfinite(spot.y).all():
        yield x, bottom, x, top


def _scale(axes: Axes, times: Sequence[float]) -> None:
    axes.margins(0.12)
    if max(times) > 10 * min(times):
        axes.set_xscale("log")
        axes.set_xlabel(f"{axes.get_xlabel()} (log scale)")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())


def _draw_front(axes: Axes, spots: Sequence[Spot], higher_is_better: bool) -> None:
    """Draw the best that can be had within each time."""
    limits = axes.get_xlim(), axes.get_ylim()
    for x1, y1, x2, y2 in _front(axes, spots, higher_is_better):
        axes.plot((x1, x2), (y1, y2), color=style.MUTED, linewidth=1.2, zorder=1)
    axes.set(xlim=limits[0], ylim=limits[1])
    axes.annotate(
        FRONT,
        (1, 1),
        xycoords="axes fraction",
        xytext=(0, 9),
        textcoords="offset points",
        ha="right",
        fontsize=10.5,
        color=style.MUTED,
    )


def _front(axes: Axes, spots: Sequence[Spot], higher_is_better: bool) -> Iterator[Box]:
    """Yield the ends of the front's steps, from the worst edge (bottom or top) to the right one."""
    places = {str(spot.series): (spot.x[0], spot.y[0]) for spot in spots}
    height = axes.get_ylim()[0 if higher_is_better else 1]
    best = [places[name] for name in unbeaten(places, higher_is_better=higher_is_better)]
    for (x, y), end in zip(best, [x for x, _ in best[1:]] + [axes.get_xlim()[1]], strict=True):
        yield x, height, x, y
        yield x, y, end, y
        height = y


# -- names ---------------------------------------------------------------------------------------


def label(
    axes: Axes, spots: Sequence[Spot], size: float = 10.5, *, higher_is_better: bool = True
) -> None:
    """Write each name beside its point. The figure must have been laid out."""
    if not spots:
        return
    dpi = axes.figure.dpi
    look: dict[str, Any] = {"fontsize": size, "fontweight": "bold", "color": style.INK}
    to_pixels = axes.transData.transform
    points = [tuple(to_pixels((spot.x[0], spot.y[0]))) for spot in spots]
    front = _front(axes, spots, higher_is_better)
    lines = [*front, *(bar for spot in spots for bar in _bars(spot))]
    in_pixels = [tuple(to_pixels(numpy.reshape(line, (2, 2))).ravel()) for line in lines]
    texts = [axes.text(0, 0, style.literal(spot.name), **look) for spot in spots]
    extents = [text.get_window_extent() for text in texts]
    for text in texts:
        text.remove()
    inside = axes.get_window_extent()
    area = (inside.x0, inside.y0, inside.x1, inside.y1)
    places = place(points, [(e.width, e.height) for e in extents], in_pixels, area, dpi)
    for spot, (x, y), (middle_x, middle_y, far) in zip(spots, points, places, strict=True):
        line = {"arrowstyle": "-", "color": style.MUTED, "linewidth": 0.8, "shrinkA": 0}
        axes.annotate(
            style.literal(spot.name),
            (spot.x[0], spot.y[0]),
            xytext=(72 / dpi * (middle_x - x), 72 / dpi * (middle_y - y)),
            textcoords="offset points",
            ha="center",
            va="center",
            arrowprops={**line, "shrinkB": 6} if far else None,
            annotation_clip=False,
            **look,
        )


def place(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    lines: Sequence[Box],
    area: Box,
    dpi: float,
) -> list[tuple[float, float, bool]]:
    """Return where the middle of each name goes, and whether that is far from its point.

    Args:
        points: x and y of each name's point, in pixels as all that follows.
        sizes: width and height of each name.
        lines: (left, bottom, right, top) of each; a name crosses one only if no free place is near.
        area: (left, bottom, right, top) that the names should not leave.
        dpi: pixels in an inch.
    """
    r = RADIUS * dpi
    marks = [(x - r, y - r, x + r, y + r) for x, y in points]
    taken: list[Box] = []
    places = []
    for (x, y), (width, height) in zip(points, sizes, strict=True):
        choices = []
        for order, (reach, (right, up)) in enumerate(product(REACHES, SIDES)):
            middle_x = x + right * reach * dpi + numpy.sign(right) * width / 2
            middle_y = y + up * reach * dpi
            box = _around(middle_x, middle_y, width, height)
            cost: float = 100 * _leaves(box, area) + 30 * _met(box, taken) + 20 * _met(box, marks)
            cost += _met(box, lines) + 0.02 * order
            choices.append((cost, middle_x, middle_y, reach > NEAR))
        _, middle_x, middle_y, far = min(choices)
        taken.append(_around(middle_x, middle_y, width, height))
        places.append((middle_x, middle_y, far))
    return places


def _around(x: float, y: float, width: float, height: float) -> Box:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _leaves(box: Box, area: Box) -> bool:
    return box[0] < area[0] or box[1] < area[1] or box[2] > area[2] or box[3] > area[3]


def _met(box: Box, others: Sequence[Box]) -> int:
    return sum(box[0] < o[2] and o[0] < box[2] and box[1] < o[3] and o[1] < box[3] for o in others)
