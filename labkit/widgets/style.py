"""One look for every figure of the lab.

Eight per cent of men see red and green alike, half of all screens are projectors with poor
contrast, and a saved notebook is read on light and on dark pages. So: the colours of Okabe and Ito
(https://jfly.uni-koeln.de/color/), each line with a dash of its own, names written beside the lines
instead of in a legend, text of 14 pixels and more, and an opaque light background, because a
transparent one is black on black in a dark theme.

Figures are matplotlib `Figure` objects, never pyplot: pyplot keeps figures in global state, and a
widget message that arrives in the middle of a cell can swallow them.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, those with the best contrast on white first."""

DASHES: tuple[Any, ...] = (
    "solid",
    (0, (6, 2)),
    (0, (1.5, 1.5)),
    (0, (7, 2, 1.5, 2)),
    (0, (3, 1.5)),
    (0, (9, 3)),
    (0, (1.5, 3)),
)
"""One matplotlib line style for each colour, in the same order."""

MARKERS = "os^DvP"
"""Shapes of points, to go with the colours: none of the two is needed alone."""

BACKGROUND, INK, MUTED, GRID = "#FFFFFF", "#1F2328", "#57606A", "#D8DEE4"
DPI = 110
LARGEST = 100
"""Inches."""
_INCHES_PER_POINT = 1 / 72


def figure(width: float = 9.2, height: float = 3.6) -> Figure:
    """Return an empty figure with the lab's background; sizes in inches, 110 pixels each.

    Raises:
        ValueError: a size is not above zero, or absurd.
    """
    if not (0 < width <= LARGEST and 0 < height <= LARGEST):
        sizes = f"{width!r} and {height!r} ({LARGEST} at most)"
        raise ValueError(f"width and height must be above 0 inches, got {sizes}")
    fig = Figure(figsize=(width, height), dpi=DPI, facecolor=BACKGROUND)
    fig.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    return fig


def literal(text: str) -> str:
    """Return a name so that matplotlib writes it as it is, and reads no mathematics in its $."""
    return text.replace("$", r"\$")


def label_axes(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    """Give `axes` a title, labels (with units) and the lab's quiet frame and grid.

    The label of the y axis stands level under the title: nobody has to turn the head.
    """
    axes.set_facecolor(BACKGROUND)
    pad = 25 if y_label else 6
    axes.set_title(literal(title), loc="left", fontsize=11.5, fontweight="bold", color=INK, pad=pad)
    axes.annotate(
        literal(y_label),
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 9),
        textcoords="offset points",
        fontsize=10.5,
        color=MUTED,
    )
    axes.set_xlabel(literal(x_label), fontsize=10.5, color=MUTED)
    axes.tick_params(labelsize=10, colors=MUTED, length=0)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], min_n_ticks=3))


def line_style(index: int) -> dict[str, Any]:
    """Return colour, dash and width of line number `index`, as keywords for `Axes.plot`."""
    place = index % len(COLORS)
    return {"color": COLORS[place], "linestyle": DASHES[place], "linewidth": 2.2}


def label_lines(axes: Axes, labels: Sequence[tuple[str, float, str]], size: float = 10.5) -> None:
    """Write names beside the right edge, at the height where their lines end, without overlap.

    Args:
        axes: with its limits and scale set.
        labels: (name, y of the line's last point, colour) for each line.
        size: of the text, in points.
    """
    to_fraction = axes.transScale + axes.transLimits
    x_end = axes.get_xlim()[1]
    wanted = [float(to_fraction.transform((x_end, y))[1]) for _, y, _ in labels]
    height = max(axes.get_window_extent().height / axes.figure.dpi, 0.1)  # in inches
    gap = 1.3 * size * _INCHES_PER_POINT / height
    for (name, _, color), y in zip(labels, spread(wanted, gap), strict=True):
        axes.annotate(
            literal(name),
            (1.0, y),
            xycoords="axes fraction",
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            ha="left",
            color=color,
            fontsize=size,
            fontweight="bold",
            annotation_clip=False,
        )


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Move positions apart until neighbours are `gap` from each other, near where they wanted.

    Args:
        wanted: positions as fractions of an axis, 0 to 1, in any order.
        gap: smallest distance between two.

    Returns:
        The new positions in the order of `wanted`.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [min(max(wanted[i], 0.0), 1.0) for i in order]
    for below, above in pairwise(range(len(placed))):
        placed[above] = max(placed[above], placed[below] + gap)
    if placed and placed[-1] > 1.0:
        placed[-1] = 1.0
        for below, above in reversed(list(pairwise(range(len(placed))))):
            placed[below] = min(placed[below], placed[above] - gap)
    result = [0.0] * len(placed)
    for place, i in enumerate(order):
        result[i] = placed[place]
    return result


def to_png(fig: Figure) -> bytes:
    """Return the figure as a PNG of at most 128 colours: a third of the bytes, no visible loss."""
    from PIL import Image

    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", facecolor=fig.get_facecolor(), dpi=fig.dpi)
    buffer.seek(0)
    small = io.BytesIO()
    with Image.open(buffer) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(
            small, format="png", optimize=True
        )
    return small.getvalue()


@dataclass(frozen=True)
class Picture:
    """A finished figure: PNG bytes and the words that stand for them where no picture shows."""

    png: bytes
    alt: str

    def bundle(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the data and the metadata that Jupyter stores: PNG, text, and the PNG's alt."""
        data = {"image/png": base64.b64encode(self.png).decode("ascii"), "text/plain": self.alt}
        return data, {"image/png": {"alt": self.alt}}

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.bundle()

    def __repr__(self) -> str:
        return self.alt


def picture(fig: Figure, alt: str) -> Picture:
    """Return `fig` as a Picture.

    Args:
        fig: a matplotlib figure.
        alt: what the figure shows, for readers who cannot see it; it may not be empty.

    Raises:
        TypeError: `fig` is no Figure.
        ValueError: `alt` is empty.
    """
    if not alt.strip():
        raise ValueError("alt must say in words what the figure shows, got an empty text")
    return Picture(to_png(fig), alt)


def show(fig: Figure, alt: str) -> None:
    """Display `fig` in the cell's output, with `alt` as its text (see `picture`)."""
    display(picture(fig, alt))
