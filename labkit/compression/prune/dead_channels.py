"""Lossless pruning: remove the channels that provably do nothing. No data, no fine-tuning.

The proof, for one channel. Whoever reads it is a linear or convolution layer; what it adds to that
layer's output is its column of the weight times its values. It may go

1. if that column is zero: it is never read;
2. if its values are 0 for every input: it adds nothing;
3. if its values are one constant c for every input and position: it adds a constant, the column
   summed up times c, which moves into the reader's bias. Not if the reader pads with zeros: at the
   border it reads 0 in place of c, and no bias can say that. Such a channel stays.

Values are constant (`constants`) behind a batch norm whose scale is zero, or a row of zeros, with
whatever activations, pools and sums come after. The proof holds for every input, in evaluation
mode, up to rounding.

Do not expect much of a healthy network; after training with a penalty on the scales (Liu et al.,
"Network Slimming", 2017: `shrink`) whole layers' worth may go.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from labkit.compression.checks import copied
from labkit.compression.prune.choice import Keep
from labkit.compression.prune.constants import constants, pads_with_zeros
from labkit.compression.prune.graph import ChannelGraph
from labkit.compression.prune.grouping import channel_graph
from labkit.compression.prune.proof import agree
from labkit.compression.prune.removal import remove_channels
from labkit.compression.prune.trace import Example
from labkit.table import Table

# What can be said of a channel, from worst to best; the reader that says least decides.
VARIES, PADDED, CONSTANT, ZERO, UNREAD = range(5)
WHY = {
    PADDED: "stays: constant, but what reads it pads with zeros, has groups or is shared",
    CONSTANT: "constant: moved into the next layer's bias",
    ZERO: "always zero",
    UNREAD: "never read: the weights that would are zero",
}
LAST = "stays: a layer needs one channel"
NOTE = "Proved for every input, in evaluation mode."


@dataclass(frozen=True)
class Finding:
    """Some channels of one group of layers, and what was found of them."""

    layer: str
    channels: int
    of: int
    why: str


@dataclass(frozen=True)
class Lossless:
    """The smaller model, in evaluation mode, and what was found. Prints as a table."""

    model: nn.Module
    findings: tuple[Finding, ...]

    @property
    def removed(self) -> int:
        """Number of channels that were removed; joined ones count once."""
        return sum(f.channels for f in self.findings if not f.why.startswith("stays"))

    def table(self) -> Table:
        """Return a row for each group and reason: what went, then what had to stay."""
        rows = tuple((f.layer, str(f.channels), str(f.of), f.why) for f in self.findings)
        return Table(("layer", "channels", "of", "why"), rows, NOTE)

    def __str__(self) -> str:
        return str(self.table())

    __repr__ = __str__


@dataclass(frozen=True)
class _Reader:
    """A layer that reads channels: what its input is, and which of it can count."""

    name: str
    tensor: str  # the name of its weight
    units: Tensor  # (inputs,) the unit of each input channel
    values: Tensor  # (inputs,) nan where the channel varies
    weight: Tensor  # (rows, inputs / groups), the kernel summed up
    used: Tensor  # bool (inputs,): some weight is not zero
    has_bias: bool  # a constant can move into it

    def verdicts(self) -> Tensor:
        """Return for each input channel what can be said of it."""
        verdicts = torch.full_like(self.units, VARIES)
        verdicts[~self.values.isnan()] = CONSTANT if self.has_bias else PADDED
        verdicts[self.values == 0] = ZERO
        verdicts[~self.used] = UNREAD  # last: what nobody reads may well vary
        return verdicts


def remove_lossless(model: nn.Module, example: Example) -> Lossless:
    """Remove all channels that provably do nothing.

    The smaller model gives the same outputs up to rounding, in evaluation mode. It is looked at
    again after each removal: a row that goes may leave a column that nobody reads.

    Args:
        model: any module that torch.fx can trace; left untouched.
        example: an input (batch first), or a tuple of inputs; only its shape matters.

    Raises:
        TypeError: `model` is not a module.
        ValueError: the model cannot be traced, overwrites what it reads again, or turns out not to
            give the same without those channels.
    """
    whole = smaller = copied(model).eval()
    sizes = dict[str, int]()
    removed = Counter[tuple[str, int]]()
    while True:  # what goes may free what it read
        graph = channel_graph(smaller, example)
        readers = _readers(graph)
        verdicts = _verdicts(graph, readers)
        keep = {name: _keep(verdicts[group.units]) for name, group in graph.groups.items()}
        for name, group in graph.groups.items():
            sizes.setdefault(name, len(group.units))
            removed.update((name, int(v)) for v in verdicts[group.units][~keep[name]])
        if all(stays.all() for stays in keep.values()):
            break
        shifts = _shifts(graph, readers, keep)
        smaller = remove_channels(smaller, graph, keep)
        _move(smaller, shifts)
    if smaller is not whole and not agree(whole, smaller, graph.example):
        raise ValueError(
            f"model is not the same function without the channels that seem dead in "
            f"{', '.join(sorted({name for name, _ in removed}))}"
        )
    stays = {n: verdicts[group.units] for n, group in graph.groups.items()}
    findings = [Finding(n, k, sizes[n], WHY[v]) for (n, v), k in sorted(removed.items())]
    for name, left in stays.items():
        for why, count in ((WHY[PADDED], left == PADDED), (LAST, left >= CONSTANT)):
            if count.any():
                findings.append(Finding(name, int(count.sum()), sizes[name], why))
    return Lossless(smaller, tuple(findings))


def _readers(graph: ChannelGraph) -> list[_Reader]:
    known = constants(graph.model, graph.operations, graph.example)
    columns = {place.tensor: place.units for place in graph.places if place.role == "reads"}
    calls = Counter(op.module for op in graph.operations)
    holders = Counter(id(p) for m in graph.model.modules() for p in m._parameters.values())
    readers = []
    for op in graph.operations:
        layer: Any = op.module
        if op.node not in known or op.tensors["weight"] not in columns:
            continue
        groups = getattr(layer, "groups", 1)
        units = columns[op.tensors["weight"]].repeat(groups)  # columns are those of one group
        weight = layer.weight.detach().double().cpu()
        weight = weight.reshape(*weight.shape[:2], -1)
        used = torch.cat([(part != 0).any(2).any(0) for part in weight.chunk(groups)])
        # A bias that another call or layer shares cannot take what is constant in this one only.
        alone = calls[layer] == 1 == holders[id(layer.weight)]
        alone &= layer.bias is None or holders[id(layer.bias)] == 1
        fits = alone and groups == 1 and not pads_with_zeros(op)
        name, weight_name = str(op.node.target), op.tensors["weight"]
        readers.append(_Reader(name, weight_name, units, known[op.node], weight.sum(2), used, fits))
    return readers


def _verdicts(graph: ChannelGraph, readers: list[_Reader]) -> Tensor:
    """Return for each unit what its readers agree on."""
    verdicts = torch.full((graph.count,), UNREAD)
    for reader in readers:
        verdicts.scatter_reduce_(0, reader.units, reader.verdicts(), "amin")
    # Of what others read (a transposed convolution, a branch of training only) nothing is known.
    looked_at = {reader.tensor for reader in readers}
    for place in graph.places:
        if place.role == "reads" and place.tensor not in looked_at:
            verdicts[place.units] = VARIES
    return verdicts


def _keep(verdicts: Tensor) -> Tensor:
    """Keep what varies; of a layer with nothing else the first channel, for it needs one."""
    stays = verdicts < CONSTANT
    stays[0] |= not stays.any()
    return stays


def _shifts(graph: ChannelGraph, readers: list[_Reader], keep: Keep) -> dict[str, Tensor]:
    """Return name of layer -> what the removed constants add to the outputs that stay."""
    stays = torch.ones(graph.count, dtype=torch.bool)
    for name, chosen in keep.items():
        stays[graph.groups[name].units] = chosen
    rows = {p.tensor: stays[p.units] for p in graph.places if p.role == "makes"}
    shifts = {}
    for reader in readers:
        gone = ~stays[reader.units] & reader.used & (reader.values != 0)
        if gone.any():
            shift = reader.weight[:, gone] @ reader.values[gone]
            shifts[reader.name] = shift[rows[reader.tensor]]
    return shifts


@torch.no_grad()
def _move(model: nn.Module, shifts: dict[str, Tensor]) -> None:
    """Add the shifts to the biases of `model` itself; a layer without one gets one."""
    for name, shift in shifts.items():
        layer: Any = model.get_submodule(name)
        old = torch.zeros(len(shift)) if layer.bias is None else layer.bias
        bias = old.double().cpu() + shift
        layer.bias = nn.Parameter(bias.to(layer.weight), layer.weight.requires_grad)
