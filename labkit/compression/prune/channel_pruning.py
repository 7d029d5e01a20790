"""Structured pruning in one call: which channels there are, which matter least, and off they go.

    smaller = prune.channels(model, images[:1], ratio=0.5)
    for step in train(smaller, batches, optimizer):  # fine-tune it
        ...
    prune.save(smaller, "smaller.pt")  # later: prune.load("smaller.pt", models.convnet())

Each of its steps stands alone as well, for whoever wants to look at the groups, the scores or the
choice before anything is removed: `channel_graph`, `magnitude_scores`, `choose`, `remove_channels`.
"""

from collections.abc import Callable, Mapping

from torch import nn

from labkit.compression.prune.budget import choose_for_flops
from labkit.compression.prune.choice import choose, spared
from labkit.compression.prune.criteria import Scores, magnitude_scores
from labkit.compression.prune.graph import ChannelGraph
from labkit.compression.prune.grouping import channel_graph
from labkit.compression.prune.removal import remove_channels
from labkit.compression.prune.trace import Example

Criterion = Callable[[ChannelGraph], Scores]


def channels(
    model: nn.Module,
    example: Example,
    ratio: float | Mapping[str, float] | None = None,
    *,
    flops: float | None = None,
    criterion: Criterion = magnitude_scores,
    together: bool = False,
    multiple: int = 1,
) -> nn.Module:
    """Return a copy of the model without the channels that matter least, to be fine-tuned.

    On some processors a few more stay, since torch could not train what is left: see `spared`.

    Args:
        model: any module that torch.fx can trace; left untouched.
        example: an input (batch first), or a tuple of inputs; only its shape matters.
        ratio: share of the channels to remove, from 0 up to 1 (excluded), of each group of layers
            that must keep the same ones; or name of group -> share.
        flops: instead of a ratio: share of the operations to keep at most, above 0 and up to 1.
        criterion: graph -> scores, the least go first: `magnitude_scores`, `batch_norm_scores`, or
            `partial(taylor_scores, batches=batches)`.
        together: rank the channels of all groups in one list, so that some layers lose more.
        multiple: keep a multiple of so many channels in each group, as kernels like it.

    Raises:
        TypeError: `model` is not a module.
        ValueError: neither or both of `ratio` and `flops`, or one out of range; a model that cannot
            be traced, or has no channel that can be removed.
    """
    if (ratio is None) == (flops is None):
        raise ValueError(f"give either ratio or flops, got {ratio!r} and {flops!r}")
    graph = channel_graph(model, example)
    scores = criterion(graph)
    if flops is not None:
        keep = choose_for_flops(graph, scores, flops, together=together, multiple=multiple)
    else:
        assert ratio is not None
        keep = choose(scores, ratio, together=together, multiple=multiple)
    return remove_channels(model, graph, spared(graph, scores, keep))
