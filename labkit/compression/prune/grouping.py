"""Find which channels of a model can be removed, and what must be removed with them.

Each channel of each tensor gets a number, and the numbers are followed through the traced model
(`rules`), in evaluation and in training mode. An addition joins two of them, for good: joined
numbers are a *unit*, and go together. Wherever a weight meets them, the place is noted, and says
which row or column goes with the unit.

What cannot do without some of its channels (attention, layer norm, reshaping by fixed sizes) keeps
them: they are frozen, with the reason. That is always right, for what an operation reads has not
changed. Last, half of every group is removed for a try: where the model then gives something else
than with those channels masked, as one does whose `forward` reads `self.layer.out_features`, the
group is frozen too. If nothing is left to prune, the model is refused.

The idea of dependency groups is that of Fang et al., "DepGraph: Towards Any Structural Pruning",
2023. Their library torch-pruning knows more (splits, attention, recurrent layers); it is not the
engine here, because it changes the model it is given and, where channels are shuffled, normalized,
put through a softmax or divided by their number, returns another function without a word.
"""

from collections import defaultdict
from collections.abc import Container, Iterable
from itertools import count
from math import prod

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from labkit.compression.checks import copied
from labkit.compression.prune.graph import ChannelGraph, Group, Place
from labkit.compression.prune.removal import prunes_well
from labkit.compression.prune.rules import Follower, Known
from labkit.compression.prune.trace import Example, Operation, trace


@torch.no_grad()
def channel_graph(model: nn.Module, example: Example) -> ChannelGraph:
    """Return which channels of the model can be removed, in groups.

    Args:
        model: any module that torch.fx can trace, with weights of its own; left untouched.
        example: an input (batch first), or a tuple of inputs; only its shape matters.

    Raises:
        TypeError: `model` is not a module.
        ValueError: the model cannot be traced, or has no channel that can be removed.
    """
    inputs, known = example if isinstance(example, tuple) else (example,), Known()
    for training in (True, False):
        copy, operations = trace(model, inputs, training=training)
        with torch.random.fork_rng(devices=[]):
            Follower(copy, operations, known).run(*tree_map(torch.clone, inputs))
    known.settle()
    graph = _graph(copy, inputs, operations, known)
    probe = _lively(copy)
    if not prunes_well(probe, graph, _half(graph, graph.groups)):
        alone = [n for n in graph.groups if not prunes_well(probe, graph, _half(graph, [n]))]
        for name in alone or graph.groups:
            reason = "without some of its channels the model gives something else"
            known.units.freeze(graph.groups[name].units.tolist(), reason)
        graph = _graph(copy, inputs, operations, known)
    if not graph.groups:
        reasons = "; ".join(f"{layer}: {why}" for layer, why in graph.kept.items())
        raise ValueError(f"model has no channel that can be removed ({reasons or 'no layers'})")
    return graph


def _graph(
    model: nn.Module, example: tuple[Tensor, ...], operations: list[Operation], known: Known
) -> ChannelGraph:
    units = known.units
    places, kept, met = [], {}, defaultdict(list)
    for (tensor, dim), (role, numbers) in known.places.items():
        roots = [units.find(number) for number in numbers]  # joined numbers become one
        places.append(Place(tensor, dim, role, torch.tensor(roots)))
        for root in dict.fromkeys(roots):
            met[root].append(len(places) - 1)
        # A layer is told as kept only if none of its channels can go.
        if role == "makes" and (len(set(roots)) == 1 or all(map(units.reason, roots))):
            reason = units.reason(roots[0]) or "its channels stand or fall together"
            kept[tensor.rpartition(".")[0]] = reason
    # Units that meet the same places are of one kind: their scores compare, a ratio is theirs.
    together = defaultdict(list)
    for root in sorted(met):  # numbers rise along the forward pass, and so will the groups
        if units.reason(root) is None:
            together[tuple(met[root])].append(root)
    groups: dict[str, Group] = {}
    for members, roots in together.items():
        layers = _layers(places[i] for i in members)
        name = _unused(layers[0], groups)
        groups[name] = Group(name, torch.tensor(roots), layers)
    counted = {path: torch.tensor([*map(units.find, n)]) for path, n in known.counted.items()}
    return ChannelGraph(model, example, operations, places, groups, kept, len(units), counted)


def _lively(model: nn.Module) -> nn.Module:
    """Return a copy whose weights are random, so that no mistake hides behind a zero."""
    model, generator = copied(model), torch.Generator().manual_seed(0)
    for weight in model.parameters():
        if weight.is_floating_point():
            noise = torch.rand(weight.shape, generator=generator)
            inputs = prod(weight.shape[1:])  # sums of so many products stay about as large
            weight.copy_(noise + 0.5 if weight.ndim < 2 else (noise - 0.5) * (12 / inputs) ** 0.5)
    return model


def _half(graph: ChannelGraph, names: Iterable[str]) -> dict[str, Tensor]:
    return {name: torch.arange(len(graph.groups[name].units)) % 2 == 0 for name in names}


def _layers(places: Iterable[Place]) -> tuple[str, ...]:
    """Return the layers that make channels at these places, each once."""
    makers = (p.tensor.rpartition(".")[0] for p in places if p.role == "makes")
    return tuple(dict.fromkeys(makers))


def _unused(name: str, taken: Container[str]) -> str:
    """Two groups can begin in the same layer: half of its channels may be joined elsewhere."""
    names = (name if i == 1 else f"{name} ({i})" for i in count(1))
    return next(n for n in names if n not in taken)
