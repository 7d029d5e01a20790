"""Which channels stay, when so many have to go?

Those of the highest scores: in each group alike, or ranked over all groups.

Time follows the multiplications only as far as the kernels like the new widths: vector units work
on 8 or 16 channels at once, so 17 channels can cost what 32 do. `multiple` rounds to such widths.
Layers that are thin or shallow gain less: reading and writing activations stays.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from labkit.checks import check_positive_int
from labkit.compression.prune.criteria import Scores
from labkit.compression.prune.graph import ChannelGraph
from labkit.facts import SAFE_CHANNELS, breaks_strided_1x1

Keep = dict[str, Tensor]
"""Name of group -> bool (units,): which of its units stay."""


def choose(
    scores: Scores,
    ratio: float | Mapping[str, float],
    *,
    together: bool = False,
    multiple: int = 1,
) -> Keep:
    """Return name of group -> bool (units,): which units stay, those of the highest scores.

    At least one unit of each group stays. Equal scores: the earlier channel stays.

    Args:
        scores: from one of `criteria`.
        ratio: share of the units to remove, from 0 up to 1 (excluded): one number, or name of
            group -> number; groups that are not named stay whole.
        together: rank the units of all groups in one list, so that some layers lose more than
            others; else each group loses the same share.
        multiple: keep a multiple of so many units in each group: the nearest one, at least one,
            at most what there is.

    Raises:
        ValueError: a ratio out of range, a group that does not exist, both `together` and ratios
            by group, or scores that cannot be ranked.
    """
    check_positive_int("multiple", multiple)
    _check_scores(scores)
    ratios = _ratios(scores, ratio)
    if together:
        if isinstance(ratio, Mapping):
            raise ValueError("ratio must be one number when the groups are ranked together")
        every = torch.cat(list(scores.values()))
        order = every.argsort(descending=True, stable=True)
        stays = torch.zeros_like(every, dtype=torch.bool)
        stays[order[: len(every) - round(ratio * len(every))]] = True
        parts = torch.split(stays, [len(score) for score in scores.values()])
        counts = {name: int(part.sum()) for name, part in zip(scores, parts, strict=True)}
    else:
        counts = {n: len(score) - round(ratios[n] * len(score)) for n, score in scores.items()}
    return {name: _highest(score, counts[name], multiple) for name, score in scores.items()}


def spared(graph: ChannelGraph, scores: Scores, keep: Keep) -> Keep:
    """Return the choice with as many channels as torch needs where it would corrupt memory.

    On such a processor (see `labkit.facts.breaks_strided_1x1`) a layer of 1x1 with a stride reads
    at least `SAFE_CHANNELS` channels, if it had as many; elsewhere the choice stays as it is.
    """
    if not breaks_strided_1x1():
        return keep
    for place in graph.places:
        layer = graph.model.get_submodule(place.tensor.rpartition(".")[0])
        if (
            not isinstance(layer, nn.Conv2d)
            or layer.kernel_size != (1, 1)
            or layer.stride == (1, 1)
        ):
            continue
        for name, group in graph.groups.items():
            few = name in keep and 1 < int(keep[name].sum()) < SAFE_CHANNELS <= len(keep[name])
            if few and place.role == "reads" and torch.isin(group.units, place.units).any():
                keep = {**keep, name: _highest(scores[name], SAFE_CHANNELS, 1)}
    return keep


def _check_scores(scores: Scores) -> None:
    if not scores:
        raise ValueError("scores is empty: there is no group to choose from")
    for name, score in scores.items():
        if score.ndim != 1 or not len(score) or score.isnan().any():
            raise ValueError(
                f"scores[{name!r}] must be one number a unit, (units,), none of them nan; "
                f"got {tuple(score.shape)} with {int(score.isnan().sum())} nan"
            )


def _ratios(scores: Scores, ratio: float | Mapping[str, float]) -> dict[str, float]:
    given = ratio if isinstance(ratio, Mapping) else dict.fromkeys(scores, ratio)
    for name, value in given.items():
        if name not in scores:
            raise ValueError(f"ratio names the group {name!r}; there are {', '.join(scores)}")
        if isinstance(value, bool) or not 0 <= value < 1:
            raise ValueError(f"ratio must be from 0 up to but not 1, got {value!r}")
    return {name: given.get(name, 0.0) for name in scores}


def _highest(score: Tensor, count: int, multiple: int) -> Tensor:
    count = min(max(round(count / multiple), 1) * multiple, len(score))
    stays = torch.zeros_like(score, dtype=torch.bool)
    stays[score.argsort(descending=True, stable=True)[:count]] = True
    return stays
