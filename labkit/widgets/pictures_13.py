"""Figures of notebook 13: who computes what when in a pipeline, simulated or measured."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from labkit.plan.pipeline_schedules import Block, idle
from labkit.widgets.style import BACKGROUND, COLORS, GRID, INK, figure, label_axes

FILLS = {"F": COLORS[0], "B": COLORS[4]}
_HEIGHT = 0.78


def timelines(
    panels: Mapping[str, Sequence[Block]], unit: str = "time, in forward passes", scale: float = 1.0
) -> tuple[Figure, str]:
    """Return one panel for each timeline, on one time axis, and the words that stand for them.

    A rank has a row. Forward passes are dark with a light number, backward passes light with a
    dark number: the microbatch. Where the row's ground shows, the rank waits.

    Args:
        panels: {title: blocks of `schedule(…)` or `Pipeline.timeline()`}.
        unit: what the time axis says.
        scale: what times are multiplied by: 1000 for "time, in ms" of measured blocks.

    Raises:
        ValueError: there is no panel, or one has no blocks.
    """
    if not panels:
        raise ValueError("panels must hold at least one timeline, got none")
    shares = {name: idle(blocks) for name, blocks in panels.items()}
    rows = [1 + max(block.rank for block in blocks) for blocks in panels.values()]
    fig = figure(9.2, sum(1.15 + 0.38 * count for count in rows) + 0.1)
    all_axes = fig.subplots(len(panels), 1, squeeze=False, height_ratios=[2 + r for r in rows])
    span = scale * max(block.end for blocks in panels.values() for block in blocks)
    for axes, (name, blocks), count in zip(all_axes[:, 0], panels.items(), rows, strict=True):
        _rows(axes, blocks, count, span, scale)
        label_axes(axes, f"{name}: {shares[name]:.0%} of the ranks' time is idle", unit, "")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=scale == 1.0))
        axes.set_yticks(range(count), [f"rank {rank}" for rank in range(count)])
        axes.set_ylim(count - 0.5, -0.5)
        axes.set_xlim(0, span)
        axes.grid(visible=False)
    _key(all_axes[0, 0])
    told = "; ".join(f"{name}: {share:.0%} idle" for name, share in shares.items())
    return fig, f"Forward and backward passes of each rank over time. {told}."


def _rows(axes: Axes, blocks: Sequence[Block], count: int, span: float, scale: float) -> None:
    """Draw the ground of each row, as far as this timeline goes, and the blocks on it."""
    axes.barh(range(count), scale * max(b.end for b in blocks), _HEIGHT, color=GRID)
    for block in blocks:
        start, width = scale * block.start, scale * (block.end - block.start)
        axes.barh(
            block.rank,
            width,
            _HEIGHT,
            start,
            color=FILLS[block.kind],
            edgecolor=BACKGROUND,
            linewidth=1.2,
        )
        if width > 0.018 * span:  # else the number does not fit
            axes.text(
                start + width / 2,
                block.rank,
                str(block.microbatch),
                ha="center",
                va="center",
                fontsize=9.5,
                fontweight="bold",
                color=BACKGROUND if block.kind == "F" else INK,
            )


def _key(axes: Axes) -> None:
    """Say what the colours mean, at the right above the rows."""
    place = 1.0
    for text, color in (("idle", GRID), ("backward", FILLS["B"]), ("forward", FILLS["F"])):
        axes.annotate(
            text,
            (place, 1),
            xycoords="axes fraction",
            xytext=(0, 9),
            textcoords="offset points",
            ha="right",
            fontsize=9.5,
            fontweight="bold",
            color=BACKGROUND if text == "forward" else INK,
            bbox={"facecolor": color, "edgecolor": "none", "pad": 2.5},
        )
        place -= 0.06 if text == "idle" else 0.105
