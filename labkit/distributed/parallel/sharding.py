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

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.optim import Optimizer

from labkit.distributed.collectives.coalesced import JoinedNorm, start_alike
from labkit.distributed.collectives.shards import all_gather as all_gather
from labkit.distributed.collectives.shards import flatten as flatten
from labkit.distributed.collectives.shards import reduce_scatter as reduce_scatter
from labkit.distributed.launcher.world import place
from labkit.distributed.parallel.sharded_parameter import Freed, check_elementwise
from labkit.distributed.parallel.sharded_unit import Unit, parts_of
from labkit.plan.memory import StateBytes, check_zero


class Sharded:
    """A model with its optimizer, sharded over the ranks. Each rank sees its part of the batch.

        sharded = Sharded(model, zero=3, units=model.blocks, lr=1e-3)
        loss(model(inputs), targets).backward()   # the mean of this rank's examples
        sharded.step()

    The mean over the ranks is taken. It is that of all examples if the ranks' parts weigh the same;
    if not, scale each rank's loss as `labkit.distributed.parallel.data.joined_mean` does. A
    parameter that took no part in a step on any rank is left alone. All ranks call all methods.

    Between steps, stage 3 holds only shards: reading a weight is refused until `gather`. In a pass
    all ranks must call the same units.

    Args:
        model: all ranks start from the first one's; its parameters become views of flat tensors.
            Frozen ones are left alone.
        zero: stage of ZeRO, 1 to 3.
        units: submodules whose weights come and go together, in the order in which the model calls
            them; what is in none is one more unit.
        group: the ranks that share it; all, when None.
        optimizer: its class; it must treat each number alone.
        groups: parameter groups as torch takes them, which together hold all that is trained.
        settings: lr and other arguments of the optimizer.

    Raises:
        ValueError: `zero` is not 1, 2 or 3, a unit's parameter is another's too, `groups` are
            not what is trained, or the optimizer looks at whole tensors.

    Attributes:
        optimizer: over this rank's pieces; its `step` is this one's.
    """

    def __init__(
        self,
        model: nn.Module,
        zero: int,
        units: Iterable[nn.Module] = (),
        group: dist.ProcessGroup | None = None,
        *,
        optimizer: type[Optimizer] = torch.optim.AdamW,
        groups: Iterable[Mapping[str, Any]] | None = None,
        **settings: Any,
    ) -> None:
        check_zero(zero, lowest=1)
        check_elementwise(optimizer, settings)
        self.model, self.units, self._group = model, list[Unit](), group
        self._trained = [p for p in model.parameters() if p.requires_grad]
        parts = parts_of(model, units)
        kept = [{"params": self._trained}] if groups is None else [_listed(one) for one in groups]
        self._groups: list[list[nn.Parameter]] = [one["params"] for one in kept]
        named = [parameter for one in self._groups for parameter in one]
        if not named or len(named) != len(set(named)) or set(named) != set(self._trained):
            raise ValueError("groups must hold each trained parameter of the model once, no other")
        start_alike(model, group)
        for module, parameters in parts:
            self._given = len(self.units)  # the last part is the model's own
            for dtype in dict.fromkeys(p.dtype for p in parameters):
                self._add(module, Unit([p for p in parameters if p.dtype == dtype], zero, group))
        pieces = {p: piece for unit in self.units for p, piece in unit.pieces.items()}
        mine = [{**g, "params": [pieces[p] for p in g["params"] if p in pieces]} for g in kept]
        self._settings, self.optimizer = settings, optimizer(mine, **settings)
        # So whoever knows only the optimizer, as `train` does, takes whole steps and clips rightly.
        self.optimizer.clip_gradients = self.clip  # type: ignore[attr-defined]
        self.optimizer.register_step_pre_hook(lambda *_: self._before_step())
        self.optimizer.register_step_post_hook(lambda *_: self._after_step())
        self._to_reduce = self._in_order()

    def step(self) -> None:
        """Update this rank's shards and hand them round."""
        self.optimizer.step()

    def clip(self, limit: float) -> float:
        """Scale the gradients so that their norm over all ranks is at most `limit`.

        Call it between backward and step. torch's `clip_grad_norm_` sees only a rank's own part.

        Returns:
            The norm before.
        """
        self._reduce_the_rest()
        pieces = [piece for unit in self.units for piece in unit.pieces.values()]
        norm = JoinedNorm(self._group)([p.grad for p in pieces if p.grad is not None])
        nn.utils.clip_grads_with_norm_(pieces, limit, norm)
        return float(norm)

    def gather(self) -> None:
        """Make all weights whole until the next step, to evaluate, save, load or change them."""
        for unit in self.units:
            unit.gather(hold=True)

    def state_bytes(self) -> StateBytes:
        """Return the bytes that this rank holds now, measured; see the function `state_bytes`."""
        pieces = [piece for unit in self.units for piece in unit.pieces.values()]
        return state_bytes([*self.model.parameters(), *pieces], self.optimizer)

    def whole_optimizer(self) -> Optimizer:
        """Return the optimizer as one process would hold it, for a checkpoint: call `gather` first.

        It needs the memory that sharding saves; a checkpoint of it and of the model fits one
        process, or other ranks: `take` its states there.
        """
        states = [
            [self.optimizer.state.get(unit.pieces.get(p, p), {}) for p in unit.parameters]
            for unit in self.units
        ]
        everyones: list[Any] = [states] * place(self._group)[1]
        dist.all_gather_object(everyones, states, self._group)
        groups = [
            {**one, "params": parameters}
            for one, parameters in zip(self.optimizer.param_groups, self._groups, strict=True)
        ]
        whole = type(self.optimizer)(groups, **self._settings)
        for unit, of_unit in zip(self.units, zip(*everyones, strict=True), strict=True):
            for parameter, *parts in zip(unit.parameters, *of_unit, strict=True):
                parts = [part for part in parts if part]  # a rank may hold nothing of it
                for key, value in parts[0].items() if parts else ():
                    if isinstance(value, Tensor) and value.dim():
                        value = unit.whole(parameter, torch.cat([part[key] for part in parts]))
                    whole.state[parameter][key] = value
        return whole

    def take(self, whole: Optimizer) -> None:
        """Take over settings and states of an optimizer that `whole_optimizer` has made."""
        for mine, theirs in zip(self.optimizer.param_groups, whole.param_groups, strict=True):
            mine.update({key: value for key, value in theirs.items() if key != "params"})
        for unit in self.units:
            for parameter, piece in unit.pieces.items():
                for key, value in whole.state.get(parameter, {}).items():
                    if isinstance(value, Tensor):
                        value = (unit.piece_of(parameter, value) if value.dim() else value).clone()
                    self.optimizer.state[piece][key] = value

    # -- inside ------------------------------------------------------------------------------

    def _add(self, module: nn.Module, unit: Unit) -> None:
        self.units.append(unit)
        for parameter in unit.parameters:
            parameter.register_post_accumulate_grad_hook(partial(self._ready, unit))  # type: ignore[no-untyped-call]
        if unit.zero == 3:
            # Freed after forward and gathered again for backward, when that asks for a weight: one
            # unit at a time, for half as much traffic again. After backward `reduce` frees them.
            hooks = list[saved_tensors_hooks]()

            def enter(*_: Any) -> None:
                unit.gather()
                hooks.append(saved_tensors_hooks(self._keep, _bring_back))
                hooks[-1].__enter__()

            def leave(*_: Any) -> None:
                hooks.pop().__exit__()
                unit.free()

            module.register_forward_pre_hook(enter)
            module.register_forward_hook(leave, always_call=True)  # also after an error

    def _keep(self, tensor: Tensor) -> Any:
        """Note where a weight lies that autograd keeps for backward, instead of the weight."""
        address = tensor.untyped_storage().data_ptr()
        for unit in self.units:
            if unit.flat is not None and unit.flat.untyped_storage().data_ptr() == address:
                return unit, tensor.size(), tensor.stride(), tensor.storage_offset()
        return tensor, tensor._version

    def _in_order(self) -> list[Unit]:
        """Return the units as backward comes to them, so that all ranks send in one order."""
        # What is in none of the given units comes last: some of it is used before all others.
        return [*reversed(self.units[: self._given]), *self.units[self._given :]]

    def _ready(self, unit: Unit, _: Tensor) -> None:
        """Note a gradient: what is complete, and next in the order, becomes shards at once."""
        # The whole gradients are gone after the first pass, so a second one could not be added.
        if unit.reduced:
            raise RuntimeError("a step takes one backward pass: call step() before the next one")
        while self._to_reduce and self._to_reduce[0].complete:
            self._to_reduce.pop(0).reduce()

    def _reduce_the_rest(self) -> None:
        while self._to_reduce:  # some parameter of it took no part
            self._to_reduce.pop(0).reduce()

    def _before_step(self) -> None:
        self._reduce_the_rest()
        used = torch.tensor([used for unit in self.units for used in unit.used]).int()
        dist.all_reduce(used, dist.ReduceOp.MAX, self._group)
        everyones = iter(used.tolist())
        for unit in self.units:
            for parameter in unit.parameters:
                if not next(everyones) and parameter in unit.pieces:
                    unit.pieces[parameter].grad = None  # else it would decay, and moments would age
            unit.settle()

    def _after_step(self) -> None:
        for unit in self.units:
            unit.finish()
        self._to_reduce = self._in_order()


def state_bytes(parameters: Iterable[Tensor], optimizer: torch.optim.Optimizer) -> StateBytes:
    """Return the bytes of the memory behind parameters, gradients and optimizer states.

    What several tensors share counts once, and DTensors count with this rank's part. Single
    numbers, such as AdamW's count of steps, are left out.

    Args:
        parameters: of the model on this rank, and its shards.
        optimizer: with its states.
    """
    parameters = [p for p in parameters if not isinstance(p, Freed)]  # they have no memory
    states = [
        value
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor) and value.dim() > 0
    ]
    own = [p for p in parameters if not getattr(p, "reduced", False)]  # those are in shards
    gradients = [p.grad for p in own if p.grad is not None]
    return StateBytes(*(_storage_bytes(tensors) for tensors in (parameters, gradients, states)))


def _storage_bytes(tensors: Iterable[Tensor]) -> int:
    # By storage, not by tensor: shards and gradients are views, and would count twice.
    locals_ = [getattr(tensor, "_local_tensor", tensor) for tensor in tensors]
    storages = [tensor.untyped_storage() for tensor in locals_]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _listed(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return a parameter group with its parameters as a list."""
    parameters = group["params"]
    return {**group, "params": [parameters] if isinstance(parameters, Tensor) else [*parameters]}


def _bring_back(kept: Any) -> Tensor:
    """Return what autograd has kept; a weight is gathered first."""
    first, *where = kept
    if isinstance(first, Unit):
        first.gather()
        assert first.flat is not None
        return first.flat.as_strided(*where)
    if first._version != where[0]:  # autograd leaves that to whoever keeps tensors for it
        raise RuntimeError("a tensor that backward needs was changed in place since forward")
    kept_tensor: Tensor = first
    return kept_tensor
