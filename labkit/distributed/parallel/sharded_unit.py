"""The parameters of one layer or block, of which each rank looks after a part.

The weights are one flat tensor. What this rank owns of it, its *shard*, is cut by parameters again,
into *pieces*: the optimizer must know which parameter a number belongs to, because groups have
settings of their own, and because what took no part in a step must be left alone.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from labkit.distributed.collectives.shards import all_gather, flatten, reduce_scatter
from labkit.distributed.launcher.world import place
from labkit.distributed.parallel.sharded_parameter import Freed, Whole


class Unit:
    """The parameters of one layer or block as a flat tensor, of which this rank owns a shard.

    Args:
        parameters: of the unit, the same on each rank, of one dtype.
        zero: stage of ZeRO, 1 to 3.
        group: the ranks that share it; all, when None.

    Attributes:
        flat: all numbers, padded, (n,); None while there is only the shard (stage 3).
        shard: (n / ranks,), this rank's part.
        pieces: {parameter: what the shard holds of it}, which this rank's optimizer updates.
        used: for each parameter, whether the last backward pass gave it a gradient.
        reduced: whether the gradients are shards.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        zero: int,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        self.parameters, self.zero, self.group = list(parameters), zero, group
        self.used, self.reduced, self._held = [False] * len(parameters), False, False
        self.flat: Tensor | None = None
        rank, self.ranks = place(group)
        self._numbers = {parameter: number for number, parameter in enumerate(parameters)}
        # In the order of memory, so that channels-last weights stay what they are.
        self._orders = [_memory_order(parameter) for parameter in parameters]
        # One tensor for all: a message a unit, not one a parameter, and shards that are equally
        # large whatever the shapes are.
        flat = flatten(map(_row, self.parameters, self._orders), self.ranks)
        length = len(flat) // self.ranks
        self._mine = slice(rank * length, (rank + 1) * length)
        # Stages 1 and 2 keep all weights, so the shard is a part of them, and the optimizer writes
        # where the model reads. In stage 3 it must outlive them.
        self.shard = flat[self._mine].clone() if zero == 3 else flat[self._mine]
        self.pieces = {p: nn.Parameter(piece) for p, piece in self._cut(self.shard).items()}
        for parameter, piece in self.pieces.items():
            piece.whole = parameter  # type: ignore[attr-defined]  # so `train` knows whose it is
        self._show(flat)
        self.free()

    @property
    def complete(self) -> bool:
        """Whether each parameter has a gradient."""
        return all(parameter.grad is not None for parameter in self.parameters)

    def gather(self, hold: bool = False) -> None:
        """Make the weights whole; with `hold` they stay so until the next step."""
        self._held |= hold and self.zero == 3
        # A layer that is used twice, or whose backward pass begins, may find them there already.
        if self.flat is None:
            flat = self.shard.new_empty(len(self.shard) * self.ranks)
            all_gather(flat, self.shard, self.group)
            self._show(flat)

    def free(self) -> None:
        """Give back the memory of the whole weights (stage 3). The shard stays."""
        if self.zero < 3 or self._held:
            return
        self.flat = None
        nothing = self.shard.new_full((), torch.nan)  # C++ does not ask the class
        for parameter in self.parameters:
            parameter.__class__ = Whole
            parameter.data = nothing.expand(parameter.shape)
            parameter.__class__ = Freed

    def reduce(self) -> None:
        """Average the gradients over the ranks into those of the pieces."""
        self.used = [parameter.grad is not None for parameter in self.parameters]
        rows = [
            self.shard.new_zeros(p.numel()) if p.grad is None else _row(p.grad, order)
            for p, order in zip(self.parameters, self._orders, strict=True)
        ]
        flat = flatten(rows, self.ranks)
        shard = reduce_scatter(flat, self.group)
        if self.zero == 1:  # the whole gradient stays, and the shard is a part of it
            flat[self._mine] = shard
            shard = flat[self._mine]
        for parameter in self.parameters:
            parameter.grad, parameter.reduced = None, True  # type: ignore[attr-defined]
        for parameter, gradient in self._cut(shard).items():
            self.pieces[parameter].grad = gradient
        self.reduced = True
        self.free()  # backward has no further use for the weights

    def settle(self) -> None:
        """Before the optimizer's step: take over what was set since `gather`, and free."""
        if self._held and self.flat is not None:
            self.shard.copy_(self.flat[self._mine])
        self._held = False
        self.free()  # else the weights of before the step would count as gathered

    def finish(self) -> None:
        """Forget the gradients, and hand the updated shard to all ranks (stages 1 and 2)."""
        for parameter in self.parameters:
            parameter.reduced = False  # type: ignore[attr-defined]
        for piece in self.pieces.values():
            piece.grad = None
        self.reduced = False
        if self.flat is not None:
            all_gather(self.flat, self.shard, self.group)

    def whole(self, parameter: nn.Parameter, row: Tensor) -> Tensor:
        """Return the numbers of a parameter, as they lie in the flat tensor, in its shape."""
        order = self._orders[self._numbers[parameter]]
        shape = [parameter.shape[dim] for dim in order]
        return row.view(shape).permute([order.index(dim) for dim in range(len(order))])

    def piece_of(self, parameter: nn.Parameter, tensor: Tensor) -> Tensor:
        """Return what this rank's piece holds of a tensor in the parameter's shape."""
        number = self._numbers[parameter]
        start, end = self._ranges()[number]
        return _row(tensor, self._orders[number])[start:end]

    def _show(self, flat: Tensor) -> None:
        """Let the parameters be views of `flat`."""
        self.flat, end = flat, 0
        for parameter in self.parameters:
            start, end = end, end + parameter.numel()
            parameter.__class__ = Whole  # the same object, so that model and hooks still know it
            parameter.data = self.whole(parameter, flat[start:end])

    def _ranges(self) -> list[tuple[int, int]]:
        """Return from where to where in each parameter's row this rank's piece goes."""
        ranges, end = [], 0
        for parameter in self.parameters:
            start, end = end, end + parameter.numel()
            first, last = (min(max(x, start), end) for x in (self._mine.start, self._mine.stop))
            ranges.append((first - start, last - start))
        return ranges

    def _cut(self, shard: Tensor) -> dict[nn.Parameter, Tensor]:
        """Cut a shard into what it holds of each parameter."""
        pieces, end = {}, 0
        for parameter, (first, last) in zip(self.parameters, self._ranges(), strict=True):
            start, end = end, end + last - first
            if start < end:
                pieces[parameter] = shard[start:end]
        return pieces


def parts_of(
    model: nn.Module, units: Iterable[nn.Module]
) -> list[tuple[nn.Module, list[nn.Parameter]]]:
    """Return each unit with what is trained in it, and the model with what they leave.

    Raises:
        ValueError: a parameter is in two units, or not in the model.
    """
    rest = {p: None for p in model.parameters() if p.requires_grad}  # a set with an order
    parts = []
    for module in units:
        mine = [p for p in module.parameters() if p.requires_grad]
        if not rest.keys() >= set(mine):
            raise ValueError("units must be parts of the model that share no parameters")
        rest = {p: None for p in rest if p not in set(mine)}
        parts.append((module, mine))
    return [*parts, (model, list(rest))]


def _memory_order(tensor: Tensor) -> list[int]:
    """Return the dimensions, that whose steps in memory are widest first."""
    return sorted(range(tensor.dim()), key=tensor.stride, reverse=True)


def _row(tensor: Tensor, order: list[int]) -> Tensor:
    """Return all numbers in one row, the dimensions in this order."""
    return tensor.detach().permute(order).flatten()
