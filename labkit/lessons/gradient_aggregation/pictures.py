"""Figures of notebook 12: chunks on their ring, messages, and what less talk costs."""

from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from labkit.compare import Quantity, Samples
from labkit.distributed.collectives.ring import RingState, ring_steps
from labkit.measure.running_average import running_averages
from labkit.plan.messages import MessageCost, ring_bytes
from labkit.widgets.charts import lines, name_rows, note, plain_ticks
from labkit.widgets.style import (
    COLORS,
    GRID,
    INK,
    MUTED,
    figure,
    label_axes,
)

KIB = 1024
KEY = "numbers: the ranks whose shares are in a chunk · dashed: just came · framed: complete"


def ring(ranks: int = 4, step: int = 1) -> tuple[Figure, str]:
    """Return what each rank holds after a step of the ring, and what was just sent.

    Args:
        ranks: number of them; each holds as many chunks.
        step: from 0 (the start) to 2 (ranks - 1); more counts as the last.
    """
    states = ring_steps(ranks)
    step = min(step, len(states) - 1)
    state = states[step]
    fig = figure(9.2, 1.5 + 0.5 * ranks)
    axes = fig.subplots()
    for rank in range(ranks):
        for chunk in range(ranks):
            _cell(axes, rank, chunk, state, ranks)
    for rank, chunk in enumerate(state.sent):
        _arrow(axes, rank, ranks - 1 - chunk, ranks)
    label_axes(axes, f"After step {step} of {len(states) - 1}: {state.phase}", "", KEY)
    axes.set_xlim(-0.35, ranks - 0.05)
    axes.set_ylim(-0.15, ranks)
    axes.set_xticks([r + 0.35 for r in range(ranks)], [f"rank {r}" for r in range(ranks)])
    chunks = [f"chunk {c}" for c in reversed(range(ranks))]
    axes.set_yticks([c + 0.4 for c in range(ranks)], chunks)
    axes.grid(visible=False)
    return fig, _ring_sentence(state, step, ranks)


def _cell(axes: Axes, rank: int, chunk: int, state: RingState, ranks: int) -> None:
    """Draw one rank's chunk: a coloured piece for each rank whose share is in it."""
    held, width, y = state.held[rank][chunk], 0.7 / ranks, ranks - 1 - chunk
    for owner in range(ranks):
        x, color = rank + owner * width, COLORS[owner] if owner in held else GRID
        axes.add_patch(Rectangle((x, y), width, 0.8, facecolor=color, edgecolor="white"))
        if owner in held:
            place, ink = (x + width / 2, y + 0.4), "white" if owner < 4 else INK
            note(axes, str(owner), place, color=ink, fontsize=9, ha="center", va="center")
    whole, arrived = len(held) == ranks, bool(state.sent) and state.sent[rank - 1] == chunk
    if whole or arrived:
        dash: Any = "-" if whole else (0, (2, 1))
        look = {"fill": False, "edgecolor": INK, "linewidth": 2.2, "linestyle": dash}
        axes.add_patch(Rectangle((rank, y), 0.7, 0.8, **look))


def _arrow(axes: Axes, rank: int, y: int, ranks: int) -> None:
    """Draw what a rank sent; the last one's leaves on the right and comes in on the left."""
    spans = [(rank + 0.71, rank + 0.99)]
    if rank == ranks - 1:
        spans = [(rank + 0.71, rank + 0.93), (-0.3, -0.01)]
    for start, end in spans:
        look = {"arrowstyle": "-|>", "mutation_scale": 14, "color": INK, "lw": 1.8}
        axes.annotate("", (end, y + 0.4), (start, y + 0.4), arrowprops=look)


def _ring_sentence(state: RingState, step: int, ranks: int) -> str:
    what = {
        "start": "Each rank holds its own share of all chunks",
        "reduce-scatter": "Each rank sent a chunk to the right and added what came from the left",
        "all-gather": "Each rank passed on a finished chunk",
    }[state.phase]
    finished = sum(len(chunk) == ranks for chunk in state.held[0])
    return (
        f"{what}. Rank 0 has {finished} of {ranks} sums. Sent so far by each: {step / ranks:.2f} "
        f"times the tensor; in the end {ring_bytes(1, ranks):.2f} times. "
        f"A rank that collects for all sends {ranks - 1:.2f} times the tensor, and receives as "
        "much."
    )


def buckets(
    measured: Mapping[str, Mapping[int, Sequence[float]]],
    cost: MessageCost,
    total: int,
    kib: int = 64,
) -> tuple[Figure, str]:
    """Return measured times beside the two-number model, and the chosen size of bucket.

    Args:
        measured: {"one message": {bytes: seconds}, "buckets": {bytes of a bucket: seconds}}.
        cost: the fitted model.
        total: bytes that were sent in buckets.
        kib: size of a bucket in KiB.
    """
    fig = figure(9.2, 3.8)
    axes = fig.subplots()
    axes.set(xscale="log", yscale="log")
    sizes = sorted(measured["buckets"])
    x = [size / KIB for size in sizes]
    for place, times in enumerate(measured.values()):
        y = [1e3 * median(times[size]) for size in sizes]
        axes.plot(x, y, "os"[place], color=COLORS[place], markersize=7, clip_on=False)
    axes.axvline(kib, color=MUTED, linewidth=1.4)
    by_size = ([cost.seconds(size) for size in sizes], [cost.seconds(total, s) for s in sizes])
    predicted = {
        kind: (x, [1e3 * second for second in seconds])
        for kind, seconds in zip(measured, by_size, strict=True)
    }
    title = f"All-reduce: marks are measured, lines are {1e3 * cost.latency:.2f} ms + bytes"
    title += f" / ({1e-9 / cost.per_byte:.2f} GB/s)"
    lines(axes, predicted, title, "KiB a message", "milliseconds")
    axes.set_xticks(x, [f"{size:g}" for size in x])
    axes.minorticks_off()
    plain_ticks(axes.yaxis, *axes.get_ylim())
    number = -(-total // (kib * KIB))
    seconds, least = cost.seconds(total, kib * KIB), cost.seconds(total)
    taken = measured["buckets"].get(kib * KIB)
    found = f" Measured: {1e3 * median(taken):.1f} ms." if taken else ""
    return fig, (
        f"{total / 2**20:g} MiB in {number} buckets of {kib} KiB: {1e3 * seconds:.1f} ms by the "
        f"two numbers, {number * cost.latency / seconds:.0%} of it latency; in one message "
        f"{1e3 * least:.1f} ms.{found} Where marks lie above the lines, many messages cost more "
        "than their latencies alone."
    )


def losses(curves: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    """Return the smoothed loss of trainings, the mean over seeds.

    Args:
        curves: {name: for each seed the loss of each step}.
    """
    fig = figure(9.2, 3.6)
    shown = {}
    for name, seeds in curves.items():
        means = [fmean(values) for values in zip(*seeds, strict=True)]
        shown[name] = (range(1, len(means) + 1), running_averages(means))
    y_label = "cross-entropy, smoothed (nats)"
    lines(fig.subplots(), shown, "Training on compressed gradients", "step", y_label)
    return fig


def accuracies(samples: Samples, on: Quantity, title: str) -> Figure:
    """Return the mean scores of each arm as dots, one a seed.

    Args:
        samples: with scores.
        on: what the mean scores are.
        title: of the figure.
    """
    fig = figure(9.2, 1.5 + 0.36 * len(samples.arms))
    axes = fig.subplots()
    for arm, seeds in samples.scores(on).items():
        values = [on.scale * float(scores.mean()) for scores in seeds.values()]
        axes.plot(
            values,
            [samples.arms.index(arm)] * len(values),
            "o",
            color=COLORS[0],
            markersize=8,
            alpha=0.7,
        )
    label_axes(axes, title, f"{on.name} ({on.unit}), a dot for each seed", "")
    name_rows(axes, samples.arms)
    axes.set_xlim(left=0)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    return fig
