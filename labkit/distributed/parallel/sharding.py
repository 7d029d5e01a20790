"""Sharded states: plain data parallel, but nobody keeps what all of them have.

Data parallel copies everything to each rank: weights, gradients, and AdamW's two moments, 16 bytes
a parameter in fp32. ZeRO gives each rank one *shard* to look after instead: stage 1 shards the
optimizer's states, stage 2 also the gradients, stage 3 also the weights. Nothing changes in the
mathematics: AdamW treats each number alone, so it does not matter where it lives.

All it takes is two collectives. *Reduce-scatter* adds up the gradients of all ranks and leaves each
with its shard of the sum; *all-gather* puts shards together again. An all-reduce is one after the
other, so stages 1 and 2 send what data parallel sends. Stage 3 gathers the weights of a layer just
before its forward and once more before its backward pass, and frees them after: half as much again.

Here the parameters of a unit (a layer, a block) are one flat tensor, as in the first FSDP; there is
no overlap of sending and computing. In real work use `torch.distributed.fsdp.fully_shard` (stage 3,
or 2 with `reshard_after_forward=False`) or `ZeroRedundancyOptimizer` (stage 1).

Source: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models",
2020.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from labkit.plan.memory import StateBytes, check_zero

# -- the two collectives ---------------------------------------------------------------------


def flatten(tensors: Iterable[Tensor], ranks: int) -> Tensor:
    """Return all numbers in one row, with zeros at the end up to a multiple of `ranks`.

    Zeros, because they stay what they are: their gradient is 0, and so is AdamW's step.
    """
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
    return nn.functional.pad(flat, (0, -len(flat) % ranks))


def reduce_scatter(flat: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """Return this rank's shard of the mean of all ranks' `flat`.

    Args:
        flat: (n,), n a multiple of the number of ranks.
        group: the ranks that share it; all, when None.
    """
    ranks = dist.get_world_size(group)
    shard = flat.new_empty(len(flat) // ranks)
    dist.reduce_scatter(shard, list(flat.chunk(ranks)), group=group)
    return shard.div_(ranks)


def all_gather(flat: Tensor, shard: Tensor, group: dist.ProcessGroup | None = None) -> None:
    """Fill `flat` with the shards of all ranks, in their order.

    Args:
        flat: (n,), written to.
        shard: (n / ranks,), of this rank; it may be its own part of `flat`.
        group: the ranks that share it; all, when None.
    """
    dist.all_gather(list(flat.chunk(dist.get_world_size(group))), shard, group=group)


# -- any module ------------------------------------------------------------------------------


class Unit:
    """The parameters of one layer or block as a flat tensor, of which this rank owns a shard.

    Args:
        parameters: of the unit, the same on each rank.
        zero: stage of ZeRO, 1 to 3.
        group: the ranks that share it; all, when None.

    Attributes:
        shard: parameter (n / ranks,), the one that this rank's optimizer updates.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        zero: int,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        self.parameters, self.zero, self.group = list(parameters), zero, group
        self.ranks, rank = dist.get_world_size(group), dist.get_rank(group)
        # One tensor for all: a message a unit, not one a parameter, and shards that are equally
        # large whatever the shapes are.
        self._flat = flatten(self.parameters, self.ranks)
        mine = self._flat.chunk(self.ranks)[rank]
        self._mine = slice(rank * len(mine), (rank + 1) * len(mine))
        # Stages 1 and 2 keep all weights, so the shard is a part of them, and the optimizer writes
        # where the model reads. In stage 3 it must outlive them.
        self.shard = nn.Parameter(mine.clone() if zero == 3 else mine)
        self._full_bytes = self._flat.untyped_storage().nbytes()
        for parameter, view in zip(self.parameters, self._views(self._flat), strict=True):
            parameter.data = view  # the same Parameter, so that model and hooks still know it
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                self._gradient_is_ready
            )
        self.free()

    def gather(self, *_: Any) -> None:
        """Make the unit's weights whole (stage 3; in the others they are)."""
        storage = self._flat.untyped_storage()
        # A layer that is used twice, or whose backward pass begins, may find them there already.
        if self.zero == 3 and storage.nbytes() == 0:
            storage.resize_(self._full_bytes)
            all_gather(self._flat, self.shard.data, self.group)

    def free(self, *_: Any) -> None:
        """Give back the memory of the whole weights (stage 3). The shard stays."""
        # The storage shrinks and grows in place: parameters, and the views that autograd has kept
        # for the backward pass, point to it, and find the weights in it when they are back.
        if self.zero == 3:
            self._flat.untyped_storage().resize_(0)

    def reduce(self) -> None:
        """Average the unit's gradients over the ranks into that of the shard."""
        # The whole gradients are gone after the first pass, so a second one could not be added.
        if self.shard.grad is not None:
            raise RuntimeError("a step takes one backward pass: call step() before the next one")
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        flat = flatten(gradients, self.ranks)
        shard = reduce_scatter(flat, self.group)
        if self.zero == 1:  # the whole gradient stays, and the shard is a part of it
            flat[self._mine] = shard
            shard = flat[self._mine]
        for parameter, view in zip(self.parameters, self._views(flat), strict=True):
            parameter.grad = view if self.zero == 1 else None
        self.shard.grad = shard
        self.free()  # backward has no further use for the weights

    def finish(self) -> None:
        """Hand the updated shard to all ranks, and forget the gradients."""
        self.shard.grad = None
        for parameter in self.parameters:
            parameter.grad = None
        if self.zero < 3:
            all_gather(self._flat, self.shard.data, self.group)

    def _gradient_is_ready(self, _: Tensor) -> None:
        # As soon as the last one is there, so that stages 2 and 3 hold one unit's gradients at a
        # time. All ranks run the same backward pass, so their units come in the same order.
        if all(p.grad is not None for p in self.parameters):
            self.reduce()

    def _views(self, flat: Tensor) -> list[Tensor]:
        sizes = [parameter.numel() for parameter in self.parameters]
        pieces = torch.split(flat[: sum(sizes)], sizes)
        return [
            piece.view(parameter.shape)
            for piece, parameter in zip(pieces, self.parameters, strict=True)
        ]


class Sharded:
    """A model with its AdamW, sharded over the ranks. Each rank sees its part of the batch.

        sharded = Sharded(model, zero=3, units=model.blocks, lr=1e-3)
        loss(model(inputs), targets).backward()   # the mean of this rank's examples
        sharded.step()

    The mean over the ranks is taken. It is that of all examples if the ranks' parts weigh the same;
    if not, scale each rank's loss as `labkit.distributed.parallel.data.joined_mean` does.

    Args:
        model: the same on each rank; its parameters become views of flat tensors. Frozen ones are
            left alone.
        zero: stage of ZeRO, 1 to 3.
        units: submodules whose weights come and go together; what is in none is one more unit.
        group: the ranks that share it; all, when None.
        adamw: lr and other arguments of torch.optim.AdamW.

    Raises:
        ValueError: `zero` is not 1, 2 or 3, or a unit's parameter is another's too.

    Attributes:
        optimizer: AdamW over this rank's shards.
    """

    def __init__(
        self,
        model: nn.Module,
        zero: int,
        units: Iterable[nn.Module] = (),
        group: dist.ProcessGroup | None = None,
        **adamw: Any,
    ) -> None:
        check_zero(zero, lowest=1)
        self.model, self.units = model, list[Unit]()
        rest = {p: None for p in model.parameters() if p.requires_grad}  # a set with an order
        for module in [*units, model]:
            mine = [p for p in module.parameters() if p.requires_grad]
            if module is model:  # the last: what the units have left
                mine = list(rest)
            elif not rest.keys() >= set(mine):
                raise ValueError("units must be parts of the model that share no parameters")
            rest = {p: None for p in rest if p not in set(mine)}
            if mine:
                self._add(module, Unit(mine, zero, group))
        self.optimizer = torch.optim.AdamW([unit.shard for unit in self.units], **adamw)

    def step(self) -> None:
        """Update this rank's shards and hand them round."""
        for unit in self.units:
            # A parameter took no part in this step, so its unit was never complete.
            if unit.shard.grad is None:
                unit.reduce()
        self.optimizer.step()
        for unit in self.units:
            unit.finish()

    def state_bytes(self) -> StateBytes:
        """Return the bytes that this rank holds now, measured; see the function `state_bytes`."""
        shards = [unit.shard for unit in self.units]
        return state_bytes([*self.model.parameters(), *shards], self.optimizer)

    def gather(self) -> None:
        """Make all weights whole, to evaluate or save them; all ranks must call it."""
        for unit in self.units:
            unit.gather()

    def _add(self, module: nn.Module, unit: Unit) -> None:
        self.units.append(unit)
        if unit.zero == 3:
            # Freed after forward and gathered again for backward: weights of one unit at a time,
            # for half as much traffic again. After backward `reduce` frees them.
            module.register_forward_pre_hook(unit.gather)
            module.register_forward_hook(unit.free)
            module.register_full_backward_pre_hook(unit.gather)


def state_bytes(parameters: Iterable[Tensor], optimizer: torch.optim.Optimizer) -> StateBytes:
    """Return the bytes of the memory behind parameters, gradients and optimizer states.

    What several tensors share counts once, and DTensors count with this rank's part. Single
    numbers, such as AdamW's count of steps, are left out.

    Args:
        parameters: of the model on this rank, and its shards.
        optimizer: with its states.
    """
    parameters = list(parameters)
    states = [
        value
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor) and value.dim() > 0
    ]
    gradients = [p.grad for p in parameters if p.grad is not None]
    return StateBytes(*(_storage_bytes(tensors) for tensors in (parameters, gradients, states)))


def _storage_bytes(tensors: Iterable[Tensor]) -> int:
    # By storage, not by tensor: shards and gradients are views, and would count twice.
    locals_ = [getattr(tensor, "_local_tensor", tensor) for tensor in tensors]
    storages = [tensor.untyped_storage() for tensor in locals_]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
