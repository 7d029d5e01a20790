"""Which layers can be pruned hard, and which not at all? Prune one group at a time and look.

The scan takes nothing for granted: it removes channels of one group, evaluates the smaller model
without any fine-tuning, and goes on to the next. Layers differ widely, so a ratio for each group
(`choose` takes one) loses less than the same ratio everywhere. What it does not see is how groups
act together: the losses of several groups do not add up.

Source: the scan of Li et al., "Pruning Filters for Efficient ConvNets", 2017, section 3.2.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from labkit.compression.prune.choice import choose
from labkit.compression.prune.criteria import Scores
from labkit.compression.prune.graph import ChannelGraph
from labkit.compression.prune.removal import remove_channels
from labkit.table import Table


@dataclass(frozen=True)
class Sensitivity:
    """What one group's pruning alone did: `value` of the smaller model, `before` of the whole."""

    group: str
    ratio: float
    kept: int
    channels: int
    value: float
    before: float

    @property
    def removed(self) -> float:
        """Share of the group's channels that are gone; a ratio seldom makes a whole number."""
        return 1 - self.kept / self.channels


def sensitivity(
    model: nn.Module,
    graph: ChannelGraph,
    scores: Scores,
    measure: Callable[[nn.Module], float],
    ratios: Sequence[float] = (0.25, 0.5, 0.75),
) -> Iterator[Sensitivity]:
    """Yield a Sensitivity for each group and ratio, as soon as it is measured.

    Args:
        model: what `graph` was made of; left untouched.
        graph: from `channel_graph`.
        scores: which channels go first; from one of `criteria`.
        measure: model -> accuracy or loss, such as `lambda m: evaluate(m, batches)`.
        ratios: shares of the group's channels to remove, each from 0 up to 1 (excluded). A 0 costs
            nothing and gives every group's curve its first point.

    Raises:
        TypeError: while iterating: `measure` returns no number.
        ValueError: while iterating: a ratio out of range, or scores of another graph.
    """
    before = _number(measure(model))
    for group in scores:
        for ratio in ratios:
            keep = choose(scores, {group: ratio})
            count = int(keep[group].sum())
            whole = count == len(keep[group])  # nothing goes: the value is known
            value = before if whole else _number(measure(remove_channels(model, graph, keep)))
            yield Sensitivity(group, ratio, count, len(keep[group]), value, before)


def _number(value: object) -> float:
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value)
    if not isinstance(value, int | float):
        raise TypeError(f"measure must return a number, got {value!r}")
    return float(value)


def sensitivity_table(found: Sequence[Sensitivity]) -> Table:
    """Return a row for each group so far: what each ratio takes off the value, times 100."""
    by_group: dict[str, list[Sensitivity]] = {}
    for result in found:
        by_group.setdefault(result.group, []).append(result)
    ratios = list(dict.fromkeys(result.ratio for result in found))
    rows = []
    for group, results in by_group.items():
        lost = [f"{100 * (result.before - result.value):.1f}" for result in results]
        lost += ["–"] * (len(ratios) - len(lost))  # not measured yet
        rows.append((group, str(results[0].channels), *lost))
    headers = ("group", "channels", *(f"{ratio:.0%} gone" for ratio in ratios))
    return Table(headers, tuple(rows), "Points lost.")
