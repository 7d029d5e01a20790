"""Structured pruning: remove whole channels, and the model really becomes smaller and faster.

A channel is a row of one layer's weight and a column of each next one's, so removing half of them
everywhere leaves a quarter of the multiplications. The result is an ordinary model of the same
class with narrower layers: it trains, exports and quantizes like any other. It computes exactly
what the model would if nobody read those channels, so what it loses is known before.

    graph = channel_graph(model, images[:1])
    keep = choose(taylor_scores(graph, batches), ratio=0.5, multiple=8)
    smaller = remove_channels(model, graph, keep)      # then fine-tune it

`prune.channels` does these three in one call; `prune.save` and `prune.load` keep the result. For
attention heads, other criteria or recurrent layers, take torch-pruning (see `grouping`).
"""

from collections import defaultdict
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from labkit.compression.checks import check_own_weights, copied
from labkit.compression.prune.choice import Keep
from labkit.compression.prune.graph import ChannelGraph, Place
from labkit.compression.prune.proof import agree
from labkit.compression.prune.stand_ins import attribute


@dataclass(frozen=True)
class ModelSize:
    """Of a model: parameters, operations of a forward pass of the example, bytes of all tensors."""

    parameters: int
    flops: int
    bytes: int


def remove_channels(model: nn.Module, graph: ChannelGraph, keep: Keep) -> nn.Module:
    """Return a copy of the model without the units that do not stay.

    The copy has the class, mode and device of `model`; `model` is left untouched.

    Args:
        model: what `graph` was made of, as it was or trained since.
        graph: from `channel_graph`.
        keep: name of group -> bool (units,), from `choose`; a group that is left out stays.

    Raises:
        ValueError: `keep` does not fit the graph, or the graph does not fit the model; or the
            smaller model does not give what the masked one does.
    """
    smaller = _cut(model, graph, keep)
    if not agree(mask_channels(model, graph, keep), smaller, graph.example):
        raise ValueError(
            f"channels of {', '.join(keep)} cannot be removed: without them the model gives "
            "something else than with them masked; leave out of `keep` what its forward counts"
        )
    return smaller


@torch.no_grad()
def mask_channels(model: nn.Module, graph: ChannelGraph, keep: Keep) -> nn.Module:
    """Return a copy of the model in which nobody reads the units that do not stay.

    The weights that read them are zero. It computes what `remove_channels` of the same arguments
    does, and takes as long as before. What makes those units is left alone: zeros there would be
    no zeros behind a sigmoid, and no number at all in `1 / x`.

    Args and raises: see `remove_channels`.
    """
    stays, masked = _stays(graph, keep), _copy(model)
    for name, places in _by_tensor(graph, masked).items():
        for place in places:
            if place.role == "reads":
                tensor, gone = attribute(masked, name), ~stays[place.units]
                tensor.index_fill_(place.dim, gone.nonzero().flatten().to(tensor.device), 0.0)
    return masked


def prunes_well(model: nn.Module, graph: ChannelGraph, keep: Keep) -> bool:
    """Say whether the model without these units gives what it does with them masked."""
    return agree(mask_channels(model, graph, keep), _cut(model, graph, keep), graph.example)


def predict_size(graph: ChannelGraph, keep: Keep) -> ModelSize:
    """Return what `remove_channels` will leave, computed from the numbers of channels alone.

    Args and raises: see `remove_channels`. An empty `keep` gives the size of the whole model.
    """
    stays, before = _stays(graph, keep), _tensors(graph.model)
    shapes = {name: list(tensor.shape) for name, tensor in before.items()}
    for place in graph.places:
        shapes[place.tensor][place.dim] = int(stays[place.units].sum())
    left = {name: prod(shape) for name, shape in shapes.items()}
    operations = graph.flops
    for op in graph.operations:
        if op.kind in {"conv", "transposed", "linear"}:
            weight = before[op.tensors["weight"]]
            # Each number of a weight is used once at each position of the output, or of the input.
            node = op.node.all_input_nodes[0] if op.kind == "transposed" else op.node
            positions = node.meta["like"].numel() // len(weight)
            operations -= 2 * positions * (weight.numel() - left[op.tensors["weight"]])
    parameters = sum(left[n] for n, t in before.items() if isinstance(t, nn.Parameter))
    size = sum(left[name] * tensor.element_size() for name, tensor in before.items())
    return ModelSize(parameters, operations, size)


def _copy(model: nn.Module) -> nn.Module:
    check_own_weights(model)
    return copied(model)


def _cut(model: nn.Module, graph: ChannelGraph, keep: Keep) -> nn.Module:
    """Return a copy without the units that do not stay."""
    stays, smaller = _stays(graph, keep), _copy(model)
    owners = owners_of(smaller)
    for name, places in _by_tensor(graph, smaller).items():
        old = attribute(smaller, name)
        new = old.detach()
        for place in places:  # a weight loses rows at one place and columns at another
            new = new.index_select(place.dim, stays[place.units].nonzero().flatten().to(old.device))
        if new.ndim == 4 and not old.is_contiguous():  # index_select forgets the memory format
            new = new.contiguous(memory_format=torch.channels_last)
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        for module, held in owners[id(old)]:  # tied weights stay tied
            setattr(module, held, new)
            _fit(module)
    for path, units in graph.counted.items():
        _count(smaller.get_submodule(path), int(stays[units].sum()))
    return smaller


def _stays(graph: ChannelGraph, keep: Keep) -> Tensor:
    """Return for each unit of the graph whether it stays."""
    stays = torch.ones(graph.count, dtype=torch.bool)
    for name, chosen in keep.items():
        group = graph.groups.get(name)
        if group is None:
            raise ValueError(f"keep names the group {name!r}; there are {', '.join(graph.groups)}")
        if chosen.dtype != torch.bool or chosen.shape != group.units.shape or not chosen.any():
            raise ValueError(
                f"keep[{name!r}] must be bool ({len(group.units)},) with a true entry, "
                f"got {chosen.dtype} {tuple(chosen.shape)} with {int(chosen.sum())} true"
            )
        stays[group.units] = chosen.cpu()
    return stays


def _by_tensor(graph: ChannelGraph, model: nn.Module) -> dict[str, list[Place]]:
    """Return the places of each tensor, after a look whether the model has such tensors."""
    found: dict[str, list[Place]] = defaultdict(list)
    for place in graph.places:
        wanted = tuple(attribute(graph.model, place.tensor).shape)
        try:
            shape: tuple[int, ...] | None = tuple(attribute(model, place.tensor).shape)
        except AttributeError:
            shape = None
        if shape != wanted:
            raise ValueError(
                f"graph is of another model: {place.tensor} is {wanted} there and "
                f"{shape or 'missing'} here"
            )
        found[place.tensor].append(place)
    return found


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return all parameters and buffers, each under one name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def owners_of(model: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """Return id of tensor -> all modules that hold it, and under which name."""
    found: dict[int, list[tuple[nn.Module, str]]] = defaultdict(list)
    for module in model.modules():
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            found[id(tensor)].append((module, name))
    return found


def _fit(module: nn.Module) -> None:
    """Set the numbers that a layer keeps of its own shape."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.modules.conv._ConvNd):
        rows, columns = module.weight.shape[:2]
        # A depthwise layer has a group for each channel, so groups go; other groups get thinner.
        if module.groups == module.in_channels > 1:
            held = module.in_channels if module.transposed else module.out_channels
            module.groups = rows * module.groups // held
        if module.transposed:
            module.in_channels, module.out_channels = rows, columns * module.groups
        else:
            module.out_channels, module.in_channels = rows, columns * module.groups
    else:
        vectors = [*module._parameters.values(), *module._buffers.values()]
        sizes = {len(vector) for vector in vectors if vector is not None and vector.ndim}
        if len(sizes) == 1:
            _count(module, sizes.pop())


def _count(module: nn.Module, channels: int) -> None:
    """Tell a norm, or a PReLU, how many channels it has."""
    if isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features = channels
    elif isinstance(module, nn.GroupNorm):  # whole groups go
        module.num_groups = module.num_groups * channels // module.num_channels
        module.num_channels = channels
    elif isinstance(module, nn.PReLU):
        module.num_parameters = channels
