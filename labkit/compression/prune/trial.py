"""What an operation without a rule does to channels: leave some out, and look.

If just the entries of those channels are missing from the result, and all others are what they
were, the operation treats each channel by itself, and it will do so without them. That is the law
itself, tried on random numbers: it needs no list of what `clamp`, `squeeze`, `x[:, None]` or a
class of somebody else does. What mixes channels (softmax), turns them round (flip), counts them
(`x / x.shape[1]`) or fixes their number (`view(-1, 8)`) gives something else, or an error.

Sizes that the model asks of the same tensors shrink with them, as they will when it runs.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

from labkit.compression.prune.coupling import Coupling
from labkit.compression.prune.trace import Operation


@dataclass(frozen=True)
class Channels:
    """The numbers of the channels of a tensor, along its dimension `dim`."""

    dim: int
    numbers: list[int]


class Trials(fx.Interpreter):
    """Runs a traced model, and can try each operation when its turn comes.

    channels: node of the trace -> channels of its result; None where all must stay.
    """

    def __init__(self, model: nn.Module, operations: list[Operation], units: Coupling) -> None:
        super().__init__(fx.GraphModule(model, operations[0].node.graph))
        self.operations = {operation.node: operation for operation in operations}
        self.units, self.channels = units, dict[fx.Node, Channels | None]()

    def tried(self, node: fx.Node) -> Channels | None:
        """Return the channels of the result; None if it does not treat each one by itself."""
        read = self._with_channels(node.all_input_nodes)
        # A tensor of one channel cannot be pruned: it stays, and is no partner of the others.
        several = [source for source in read if len(self._of(source).numbers) > 1] or read
        for source in set(read) - set(several):
            self.units.freeze(self._of(source).numbers, "a layer needs one channel")
        # `y.view(x.size(0), -1)` asks x for its batch alone; `y.view(*x.shape[:2], 1, 1)` makes the
        # channels of y and x partners. The second only if the first fails.
        for partners in (several, [*several, *self._asked(node)]):
            found = self._together(node, list(dict.fromkeys(partners)))
            if found is not None:
                return found
        return None

    def _together(self, node: fx.Node, partners: list[fx.Node]) -> Channels | None:
        """Leave out the same channels of all partners, which are joined if that works."""
        first, *others = (self._of(partner).numbers for partner in partners)
        if any(len(other) != len(first) for other in others):
            return None
        count, generator = len(first), torch.Generator().manual_seed(0)
        left = torch.randperm(count, generator=generator)[: (count + 1) // 2].sort().values
        copies = 2 if count == 1 else 1  # a single channel cannot be left out, but come twice
        try:
            whole = self._result(node, partners, None)
            fewer = self._result(node, partners, left.repeat(copies))
        except Exception:  # whatever it raises, it cannot do without those channels
            return None
        for dim, size in enumerate(whole.shape):
            times, rest = divmod(size, count)
            # Flattening makes as many neighbours of a channel as there are positions behind it,
            # and lets all channels come round again for each position before them.
            each = torch.arange(count)
            for order in () if rest else (each.repeat_interleave(times), each.repeat(times)):
                index = torch.isin(order, left).nonzero().flatten().repeat(copies)
                if _same(whole.index_select(dim, index.to(whole.device)), fewer):
                    for other in others:
                        self.units.join(first, other)
                    return Channels(dim, [first[i] for i in order.tolist()])
        return None

    def _result(self, node: fx.Node, partners: list[fx.Node], left: Tensor | None) -> Any:
        """Run the operation on random numbers in the places of what it reads."""
        generator = torch.Generator().manual_seed(1)

        def value(source: fx.Node) -> Any:
            now = self.env[source]
            if source in partners:
                if now.is_floating_point():
                    now = torch.randn(now.shape, generator=generator).to(now)
                return self._left(source, now, left).clone()
            if self.operations[source].kind == "number":
                return self._number(source, partners, left)
            # What it writes over must be another tensor than the one that the model goes on with.
            return tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, now)

        return self._call(node, {source: value(source) for source in node.all_input_nodes})

    def _number(self, source: fx.Node, partners: list[fx.Node], left: Tensor | None) -> Any:
        """Compute a size anew, as it is when the partners have other channels."""
        arguments = {
            s: self._number(s, partners, left)
            if self.operations[s].kind == "number"
            else self._left(s, s.meta["like"], left if s in partners else None)
            for s in source.all_input_nodes
        }
        return self._call(source, arguments)

    def _call(self, node: fx.Node, arguments: dict[fx.Node, Any]) -> Any:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), arguments.__getitem__)
        return getattr(self, node.op)(node.target, args, kwargs)

    def _left(self, source: fx.Node, tensor: Tensor, left: Tensor | None) -> Tensor:
        if left is None:
            return tensor
        return tensor.index_select(self._of(source).dim, left.to(tensor.device))

    def _asked(self, node: fx.Node) -> list[fx.Node]:
        """Return the tensors with channels whose sizes the arguments are made of."""
        numbers = [s for s in node.all_input_nodes if self.operations[s].kind == "number"]
        return self._with_channels(
            s for n in numbers for s in [*n.all_input_nodes, *self._asked(n)]
        )

    def _with_channels(self, sources: Iterable[fx.Node]) -> list[fx.Node]:
        return [source for source in sources if self.channels.get(source) is not None]

    def _of(self, source: fx.Node) -> Channels:
        channels = self.channels[source]
        assert channels is not None
        return channels


def _same(some: Tensor, other: Tensor) -> bool:
    if some.shape != other.shape:
        return False
    if not some.is_floating_point():
        return torch.equal(some, other)
    # Sums in another order; a mistake in a rule is far larger.
    return torch.allclose(some.float(), other.float(), rtol=1e-3, atol=1e-5, equal_nan=True)
