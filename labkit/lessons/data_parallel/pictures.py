"""Figures of notebook 11: what a rank does when, and what a step is made of."""

from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit.plan.efficiency import StepCost
from labkit.plan.messages import MessageCost
from labkit.widgets.charts import name_rows
from labkit.widgets.style import BACKGROUND, COLORS, INK, MUTED, figure, label_axes

ROWS = ("computing", "sending")
FILLS = {
    "forward": COLORS[0],
    "backward": COLORS[5],
    "optimizer": COLORS[3],
    "sending": COLORS[1],
}
HATCHES = {"backward": "//", "sending": "xx"}
BATCHES = [2**power for power in range(11)]
NETWORKS = {
    "this machine": None,
    "1 Gbit/s": MessageCost(latency=2e-4, per_byte=8e-9),
    "100 Gbit/s": MessageCost(latency=2e-5, per_byte=8e-11),
}
"""What an all-reduce costs between two ranks; the latencies are assumed, in round numbers."""


def timeline(spans: Iterable[tuple[str, float, float]]) -> Figure:
    """Return a rank's step as two rows: what it computes, and what is on its way meanwhile.

    Args:
        spans: ("forward", "backward", "optimizer" or "sending", start and end in seconds).
    """
    spans = list(spans)
    fig = figure(9.2, 2.5)
    axes = fig.subplots()
    named = set()
    for what, start, end in spans:
        row = ROWS.index("sending" if what == "sending" else "computing")
        axes.barh(
            row,
            1e3 * (end - start),
            0.62,
            1e3 * start,
            color=FILLS[what],
            edgecolor=BACKGROUND,
            hatch=HATCHES.get(what),
            label=None if what in named else what,
        )
        named.add(what)
    title = f"One step of one rank: {sum(s[0] == 'sending' for s in spans)} messages"
    label_axes(axes, title, "milliseconds since the forward pass began", "")
    name_rows(axes, ROWS)
    axes.set_xlim(0, 1e3 * max(end for *_, end in spans) * 1.01)
    _key(axes)
    return fig


def _key(axes: Axes) -> None:
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=4,
        frameon=False,
        fontsize=10,
        labelcolor=INK,
        handlelength=1.4,
        columnspacing=1.2,
    )


def step_parts(cost: StepCost, ranks: int = 2, network: str = "this machine") -> tuple[Figure, str]:
    """Return for each batch a rank what part of a step is computing, if nothing is hidden.

    Args:
        cost: measured with two ranks.
        ranks: how many there shall be.
        network: one of NETWORKS.
    """
    message = NETWORKS[network] or cost.message
    cost = StepCost(cost.fixed, cost.image, message, cost.gradient)
    shares = [100 * cost.efficiency(batch, ranks) for batch in BATCHES]
    fig = figure(9.2, 3.4)
    axes = fig.subplots()
    places = range(len(BATCHES))
    axes.bar(places, shares, 0.8, color=COLORS[0], label="computing")
    rest = [100 - share for share in shares]
    axes.bar(places, rest, 0.8, shares, color=COLORS[1], hatch="xx", edgecolor="white")
    axes.containers[1].set_label("sending")
    for place, share in zip(places, shares, strict=True):
        axes.text(place, 3, f"{share:.0f}", ha="center", color="white", fontsize=10)
    axes.axhline(90, color=MUTED, linewidth=1.4)
    label_axes(axes, f"{ranks} ranks, {network}", "images a rank", "% of a step")
    axes.set_xticks(places, [str(batch) for batch in BATCHES])
    axes.set_ylim(0, 100)
    axes.grid(visible=False)
    _key(axes)
    smallest = cost.smallest_batch(0.9, ranks)
    return fig, (
        f"Sending the {cost.gradient / 1e3:,.0f} kB gradient takes {1e3 * cost.sending(ranks):.2g} "
        f"ms, whatever the batch. By this model, at best, 90 % of a step is computing from "
        f"{smallest} images a rank on."
    )
