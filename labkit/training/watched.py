"""What there is to see of a training: where a step's time goes, as bands that grow with it.

Data, forward, backward and optimizer add up to the step, so they are stacked: the top edge is the
time of the whole step, and a band that grows fat is where to look. Single steps jitter, so a point
of a long training is the mean of a few.
"""

from collections.abc import Sequence
from statistics import median

from labkit.table import Table
from labkit.training.run import Training
from labkit.training.step import Phases, Step
from labkit.watch import Panel, Point, Watched, feed, watch

POINTS = 150
"""Points of each band, at most."""
WARMUP_STEPS = 3
"""Left out at the start: they build kernels and fill caches."""


@feed.register
def watch_training(training: Training) -> Watched[Step]:
    """Return a feed of the steps that are left to do.

    On an accelerator the training must have been made with `timed=True`, or the phases are those
    of the processor that gives the orders.
    """
    first, left = training.index + WARMUP_STEPS, len(training) - training.index
    size = max(1, left // POINTS)  # steps that a point stands for
    block: list[Phases] = []
    parts = Phases._fields if training.between else Phases._fields[:4]

    def point(step: Step) -> list[Point]:
        if step.index < first:
            return []
        block.append(step.phases)
        if len(block) < size:
            return []
        means = [1e3 * sum(seconds) / size for seconds in zip(*block, strict=True)]
        block.clear()
        return [
            Point(0, band, step.index + 1, mean) for band, mean in enumerate(means[: len(parts)])
        ]

    def table(steps: Sequence[Step]) -> Table | None:
        return phases_table([step.phases for step in steps if step.index >= first])

    title, y_label = "Where a step's time goes", "time of a step (ms)"
    panel = Panel(title, y_label, ("steps",), parts, "stacked")
    return watch(training, panel, point, total=left, each="steps", table=table)


def phases_table(phases: Sequence[Phases]) -> Table | None:
    """Return median and share of each part of a step, or None without any step."""
    if not phases:
        return None
    whole = sum(map(sum, phases))
    rows = [
        (name, f"{1e3 * median(seconds):.2f}", f"{100 * sum(seconds) / whole:.0f}")
        for name, seconds in zip(Phases._fields, zip(*phases, strict=True), strict=True)
        if any(seconds)
    ]
    rows.append(("whole step", f"{1e3 * median(map(sum, phases)):.2f}", "100"))
    return Table(("part", "median ms", "% of the time"), tuple(rows))
