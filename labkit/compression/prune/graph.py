"""Find which channels of a model can be removed, and what must be removed with them.

Each channel of each tensor gets a number, and the numbers are followed through the traced model
(`rules`). An addition joins two of them, for good: joined numbers are a *unit*, and go together.
Wherever a weight meets them, the place is noted, and says which row or column goes with the unit.

What the rules do not know (attention, layer norm, reshaping by fixed sizes) keeps its channels:
they are frozen, with the reason. That is always right, for what an operation reads has not changed.
If nothing is left to prune, the model is refused.

The idea of dependency groups is that of Fang et al., "DepGraph: Towards Any Structural Pruning",
2023. Their library torch-pruning knows more (splits, attention, recurrent layers); it is not the
engine here, because it changes the model it is given and, where channels are shuffled, normalized,
put through a softmax or divided by their number, returns another function without a word.
"""

from collections import defaultdict
from collections.abc import Container, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import count

import torch
from torch import Tensor, nn

from labkit.compression.prune.rules import Follower
from labkit.compression.prune.trace import Example, Operation, trace
from labkit.measure import flops


@dataclass(frozen=True)
class Place:
    """Where units meet a tensor of the model: index i along `dim` belongs to unit `units[i]`.

    `role` is "makes" (rows of a weight), "reads" (columns of a weight) or "passes" (batch norm,
    depthwise convolution). A place of a model's tensor is noted once, however often it is used.
    """

    tensor: str
    dim: int
    role: str
    units: Tensor


@dataclass(frozen=True)
class Group:
    """Units that meet the same places: channels of the same layers. Named after the first layer."""

    name: str
    units: Tensor
    layers: tuple[str, ...]


@dataclass(frozen=True)
class ChannelGraph:
    """What `channel_graph` found.

    model: a copy in evaluation mode of the model that was looked at.
    example: the inputs it was traced with.
    operations: its forward pass.
    places: where units meet weights.
    groups: name -> group, in the order of the forward pass.
    kept: layer -> why its output channels all stay.
    count: units are numbers below this one (most of those stand for none).
    """

    model: nn.Module
    example: tuple[Tensor, ...]
    operations: list[Operation]
    places: list[Place]
    groups: dict[str, Group]
    kept: dict[str, str]
    count: int

    @cached_property
    def flops(self) -> int:
        """Operations of one forward pass of the example, counted once."""
        with torch.enable_grad():  # attention is then not one fused kernel, which cannot be counted
            return flops(lambda: self.model(*self.example))


def channel_graph(model: nn.Module, example: Example) -> ChannelGraph:
    """Return which channels of the model can be removed, in groups.

    Args:
        model: any module that torch.fx can trace; left untouched.
        example: an input (batch first), or a tuple of inputs.

    Raises:
        TypeError: `model` is not a module.
        ValueError: the model cannot be traced, or has no channel that can be removed.
    """
    copy, operations = trace(model, example)
    follower = Follower(copy)
    for operation in operations:
        follower.follow(operation)
    follower.settle()
    inputs = example if isinstance(example, tuple) else (example,)
    graph = _graph(copy, inputs, operations, follower)
    if not graph.groups:
        reasons = "; ".join(f"{layer}: {why}" for layer, why in graph.kept.items())
        raise ValueError(f"model has no channel that can be removed ({reasons or 'no layers'})")
    return graph


def _graph(
    model: nn.Module,
    example: tuple[Tensor, ...],
    operations: list[Operation],
    follower: Follower,
) -> ChannelGraph:
    units = follower.units
    places, kept, met = [], {}, defaultdict(list)
    for (tensor, dim), (role, numbers) in follower.places.items():
        roots = [units.find(number) for number in numbers]  # joined numbers become one
        places.append(Place(tensor, dim, role, torch.tensor(roots)))
        for root in dict.fromkeys(roots):
            met[root].append(len(places) - 1)
        # A layer is told as kept only if none of its channels can go.
        if role == "makes" and all(map(units.reason, roots)):
            kept[tensor.rpartition(".")[0]] = units.reason(roots[0]) or ""
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
    return ChannelGraph(model, example, operations, places, groups, kept, len(units))


def _layers(places: Iterable[Place]) -> tuple[str, ...]:
    """Return the layers that make channels at these places, each once."""
    makers = (p.tensor.rpartition(".")[0] for p in places if p.role == "makes")
    return tuple(dict.fromkeys(makers))


def _unused(name: str, taken: Container[str]) -> str:
    """Two groups can begin in the same layer: half of its channels may be joined elsewhere."""
    names = (name if i == 1 else f"{name} ({i})" for i in count(1))
    return next(n for n in names if n not in taken)
