"""What a live view shows of a sensitivity scan: for each group of layers, value over what is gone.

All lines start at the whole model, on the left. One that stays up belongs to a group that can be
pruned hard; one that drops at once belongs to a group to be left alone. Each point is the value of
a model of its own, with channels of that group alone removed and nothing fine-tuned.

    scan = SensitivityFeed(model, graph, scores, measure=accuracy)
    run = live(scan)                # then `await run`, and `scan.found` holds the results

One model is one unit of work, so Stop answers as quickly as `measure` does: take few images.
"""

from collections.abc import Callable, Sequence
from time import perf_counter

from torch import nn

from labkit.compression.prune import ChannelGraph, Sensitivity, sensitivity
from labkit.compression.prune.criteria import Scores
from labkit.table import Table
from labkit.watch import Panel, Point, Status

RATIOS = (0.25, 0.5, 0.75)


class SensitivityFeed:
    """A scan under way; see `labkit.compression.prune.sensitivity` for what it does.

    Args:
        model: what `graph` was made of; left untouched.
        graph: from `channel_graph`.
        scores: which channels go first.
        measure: model -> share of right answers, 0 to 1.
        ratios: shares of a group's channels to remove, each from 0 up to 1 (excluded).

    Attributes:
        found: a result for each group and ratio, in the order in which they were measured.

    Raises:
        ValueError: no groups or no ratios; while working: a ratio out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        scores: Scores,
        measure: Callable[[nn.Module], float],
        ratios: Sequence[float] = RATIOS,
    ) -> None:
        if not scores or not ratios:
            raise ValueError(
                f"a scan needs groups and ratios, got {len(scores)} groups and {len(ratios)} ratios"
            )
        title = "One group of layers pruned at a time, nothing fine-tuned"
        label, x_label = "correct on test images (%)", "channels of the group removed (%)"
        self.groups, self._total = tuple(scores), len(scores) * len(ratios)
        self.panels = (Panel(title, label, (x_label,), self.groups),)
        self.found: list[Sensitivity] = []
        self._scan = sensitivity(model, graph, scores, measure, ratios)
        self._sent, self._seconds = 0, 0.0

    def advance(self) -> bool:
        """Measure one smaller model."""
        began = perf_counter()
        found = next(self._scan, None)
        self._seconds += perf_counter() - began
        if found is not None:
            self.found.append(found)
        return found is not None

    def rows(self) -> Sequence[Point]:
        """Return the points that are new; a group's first one brings the whole model along."""
        points = []
        for place in range(self._sent, len(self.found)):
            found = self.found[place]
            series = self.groups.index(found.group)
            if found.group not in [earlier.group for earlier in self.found[:place]]:
                points.append(Point(0, series, 0.0, 100 * found.before))
            gone = 100 * (1 - found.kept / found.channels)
            points.append(Point(0, series, gone, 100 * found.value))
        self._sent = len(self.found)
        return points

    def status(self) -> Status:
        """Return how many models are measured."""
        done = len(self.found)
        left = (self._total - done) * self._seconds / done / 60 if done else None
        return Status(done / self._total, left, f"{done} of {self._total} smaller models.")

    def table(self) -> Table | None:
        """Return a row for each group so far: points lost at each ratio."""
        if not self.found:
            return None
        by_group: dict[str, list[Sensitivity]] = {}
        for found in self.found:
            by_group.setdefault(found.group, []).append(found)
        most = max(map(len, by_group.values()))
        ratios = [f"{found.ratio:.0%} gone" for found in next(iter(by_group.values()))]
        rows = []
        for group, of_group in by_group.items():
            lost = [f"{100 * (found.before - found.value):.1f}" for found in of_group]
            blank = ["–"] * (most - len(lost))
            rows.append((group, str(of_group[0].channels), *lost, *blank))
        return Table(("group", "channels", *ratios), tuple(rows), "Points of accuracy lost.")
