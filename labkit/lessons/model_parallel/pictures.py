"""Figures of notebook 13: what a pipeline computes when, and the memory of each split."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from labkit import units
from labkit.plan.pipeline_schedules import Block, idle
from labkit.plan.splits import GB, RESERVE, Plan, Split, TransformerSize, choose_split, fits
from labkit.widgets.charts import name_rows, note
from labkit.widgets.style import BACKGROUND, COLORS, GRID, INK, MUTED, figure, label_axes

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
        name_rows(axes, [f"rank {rank}" for rank in range(count)])
        axes.set_xlim(0, span)
    _key(all_axes[0, 0])
    told = "; ".join(f"{name}: {share:.0%} idle" for name, share in shares.items())
    return fig, f"Forward and backward passes of each rank over time. {told}."


def _rows(axes: Axes, blocks: Sequence[Block], count: int, span: float, scale: float) -> None:
    """Draw the ground of each row, as far as this timeline goes, and the blocks on it."""
    axes.barh(range(count), scale * max(b.end for b in blocks), _HEIGHT, color=GRID)
    for block in blocks:
        start, width = scale * block.start, scale * (block.end - block.start)
        look: dict[str, Any] = {"edgecolor": BACKGROUND, "linewidth": 1.2}
        axes.barh(block.rank, width, _HEIGHT, start, color=FILLS[block.kind], **look)
        if width > 0.018 * span:  # else the number does not fit
            ink, middle = BACKGROUND if block.kind == "F" else INK, (start + width / 2, block.rank)
            look = {"fontsize": 9.5, "fontweight": "bold", "ha": "center", "va": "center"}
            note(axes, str(block.microbatch), middle, color=ink, **look)


def _key(axes: Axes) -> None:
    """Say what the colours mean, at the right above the rows."""
    place = 1.0
    for text, color in (("idle", GRID), ("backward", FILLS["B"]), ("forward", FILLS["F"])):
        look = {"fontsize": 9.5, "color": BACKGROUND if text == "forward" else INK}
        ground = {"facecolor": color, "edgecolor": "none", "pad": 2.5}
        where = {"xycoords": "axes fraction", "ha": "right", "fontweight": "bold"}
        note(axes, text, (place, 1), (0, 9), bbox=ground, **where, **look)
        place -= 0.06 if text == "idle" else 0.105


PARTS = ("weights", "gradients", "optimizer", "activations")
SIZES = {
    "this notebook's": TransformerSize(64, 4, 4, 4096, 32),
    "768 wide, 12 deep": TransformerSize(768, 12, 12, 50_000, 1024),
    "2,048 wide, 24 deep": TransformerSize(2048, 24, 16, 50_000, 2048),
    "4,096 wide, 32 deep": TransformerSize(4096, 32, 32, 50_000, 2048),
    "8,192 wide, 80 deep": TransformerSize(8192, 80, 64, 50_000, 4096),
    "12,288 wide, 96 deep": TransformerSize(12_288, 96, 96, 50_000, 2048),
}
WIDEST = 2.6  # bars end at this many times the limit


def picker(
    model: str = "4,096 wide, 32 deep",
    devices: int = 8,
    memory: float = 80,
    batch: int = 32,
    precision: str = "bf16",
) -> tuple[Figure, str]:
    """Return the bars of all splits, the simplest that fits marked, and its arithmetic.

    Args:
        model: a name in SIZES.
        devices: of one kind.
        memory: GB a device.
        batch: sequences a step.
        precision: "fp32" or "bf16".
    """
    size = SIZES[model]
    made = choose_split(size, devices=devices, memory=memory, batch=batch, precision=precision)
    shown = made.chosen or min(made.splits, key=lambda split: split.memory)
    said = "" if made.chosen else "Nothing fits. The nearest is "
    return memory_bars(made), said + ". ".join(shown.lines(memory)) + "."


def memory_bars(made: Plan) -> Figure:
    """Return stacked bars of what the fullest rank needs, one a split, and the limit as a line."""
    fig = figure(9.2, 1.7 + 0.4 * len(made.splits))
    axes = fig.subplots()
    usable = (1 - RESERVE) * made.memory
    for row, split in enumerate(made.splits):
        _bar(axes, row, split, fits(split, made.memory), WIDEST * made.memory)
    axes.axvline(usable, color=INK, linewidth=1.6)
    axes.set_xlim(0, 1.3 * WIDEST * made.memory)
    label_axes(axes, _title(made), "GB on the fullest device; the line is what may be used", " ")
    names = [("➜ " if s is made.chosen else "") + s.name for s in made.splits]
    name_rows(axes, names)
    for label, split in zip(axes.get_yticklabels(), made.splits, strict=True):
        label.set_color(INK if split is made.chosen else MUTED)
        label.set_fontweight("bold" if split is made.chosen else "normal")
    _legend(axes)
    return fig


def _title(made: Plan) -> str:
    split = made.splits[0]
    devices = split.data * split.tensor * split.pipeline
    millions = split.size.parameters / 1e6
    count = f"{millions:,.1f} million" if millions < 1000 else f"{millions / 1000:,.1f} billion"
    return f"{count} parameters, {devices:,} x {made.memory:g} GB, {split.precision}"


def _bar(axes: Axes, row: int, split: Split, fitting: bool, end: float) -> None:
    """Draw one bar, cut off at `end`, with its sum beside it."""
    left = 0.0
    for color, bytes_ in zip(COLORS, (*split.states, split.activations), strict=False):
        width = min(bytes_ / GB, end - left)
        axes.barh(row, width, 0.66, left, color=color, edgecolor="white", linewidth=0.5)
        left += width
    cut = "▸ " if split.memory / GB > end else ""
    text = f"{cut}{units.size(split.memory)}{'' if fitting else ': too much'}"
    ground = {"facecolor": BACKGROUND, "edgecolor": "none", "pad": 1.5}
    color = INK if fitting else MUTED
    note(axes, text, (left, row), (4, 0), va="center", color=color, bbox=ground)


def _legend(axes: Axes) -> None:
    """Write the parts' names in their colours, in the order of the bars."""
    for place, (part, color) in enumerate(zip(PARTS, COLORS, strict=False)):
        look = {"xycoords": "axes fraction", "color": color, "fontweight": "bold"}
        note(axes, f"■ {part}", (0.2 * place, 1), (0, 8), **look)
