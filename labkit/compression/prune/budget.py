"""How much must go, so that a given share of the operations is left?

A ratio of channels says little about the work: half of the channels is a quarter of the operations
of an inner layer, half of those of the first and the last one, and rounding to widths that the
machine likes moves it again. So say what is left of the operations, and search for the ratio.

The search is exact. No group keeps more channels at a higher ratio, so the operations only fall as
the ratio rises; and they change at finitely many ratios only, where one channel more is rounded
away. Bisection over the steps between those finds the first one that is within the budget.

With large multiples the steps are high: the next smaller choice may lie far below the budget. Then
`together=True`, which moves one group at a time, often comes closer.
"""

from bisect import bisect_left
from itertools import pairwise

from labkit.compression.prune.choice import Keep, choose
from labkit.compression.prune.criteria import Scores
from labkit.compression.prune.graph import ChannelGraph
from labkit.compression.prune.removal import predict_size


def choose_for_flops(
    graph: ChannelGraph,
    scores: Scores,
    flops: float,
    *,
    together: bool = False,
    multiple: int = 1,
) -> Keep:
    """Return the choice that keeps most, with at most `flops` of the model's operations.

    Args:
        graph: from `channel_graph`; operations are those of its example.
        scores: from one of `criteria`.
        flops: share of the operations of a forward pass, above 0 and up to 1.
        together, multiple: see `choose`.

    Returns:
        Name of group -> bool (units,): which units stay.

    Raises:
        ValueError: a share out of range, or one that not even the smallest choice reaches.
    """
    if isinstance(flops, bool) or not isinstance(flops, int | float) or not 0 < flops <= 1:
        raise ValueError(f"flops must be a number above 0 and up to 1, got {flops!r}")

    def chosen(ratio: float) -> Keep:
        return choose(scores, ratio, together=together, multiple=multiple)

    def operations(ratio: float) -> int:
        return predict_size(graph, chosen(ratio)).flops

    ratios = _ratios([len(score) for score in scores.values()], together)
    place = bisect_left(ratios, True, key=lambda ratio: operations(ratio) <= flops * graph.flops)
    if place == len(ratios):
        least = operations(ratios[-1]) / graph.flops
        raise ValueError(f"flops {flops:g} cannot be reached: the smallest choice leaves {least:g}")
    return chosen(ratios[place])


def _ratios(sizes: list[int], together: bool) -> list[float]:
    """Return a ratio for each step of `choose`: a group of n loses one more at (i + 1/2) / n."""
    counted = [sum(sizes)] if together else sizes
    edges = {(i + 0.5) / n for n in counted for i in range(n)}
    return [(low + high) / 2 for low, high in pairwise([0.0, *sorted(edges), 1.0])]
