"""Save on some ranks, load on any number: checkpoints of models that no single rank holds.

Gathering a sharded model on one rank to save it needs the memory that sharding was to save, and
makes all others wait. Here each rank writes what it holds, with where it belongs in the whole, and
on loading each rank reads what overlaps with what it shall hold. So the number of ranks and the
split may change between saving and loading: `fully_shard`, tensor parallel, both, stages of a
pipeline, or one plain process.

torch's own format for this keeps its table of contents in a pickle and opens it with `pickle.load`,
which can run any code; and it reads what is no tensor with `weights_only=False`. Its writer and
reader of safetensors (`HuggingFaceStorageWriter`; it needs no network and no hub) do the same work
without: so those are used here, and what is no tensor (a learning rate, the step) goes into JSON.
The whole is written so that a killed save leaves the old checkpoint: see `checkpoint_folder`.

All ranks must see the same folder. To go on training while files are written, see
`torch.distributed.checkpoint.async_save`.
"""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from labkit.distributed.parallel.checkpoint_folder import begin, finish, read, union

Number = int | float | str | bool | None


def save(
    folder: str | Path, model: nn.Module, optimizer: Optimizer | None = None, **numbers: Number
) -> None:
    """Write model and optimizer to `folder`, whole or not at all. All ranks call it.

    Args:
        folder: new, or of an earlier call; the earlier checkpoint is removed at the end.
        model: this rank's share; parameters are tensors or DTensors. A plain tensor that several
            ranks name alike must be the same on all of them.
        optimizer: of this model; it has made a step.
        numbers: what else belongs to it, such as `step=120`; the same on all ranks.

    Raises:
        ValueError: `folder` holds something else, or the optimizer has made no step.
        TypeError: a state or one of `numbers` is neither a tensor nor fit for JSON.
        OSError: the folder cannot be written; an earlier checkpoint stays as it was.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save as save_shards

    with _fresh_stays_fresh(optimizer) as fresh:
        tensors, values = _state(model, optimizer)
        if fresh and optimizer is not None and optimizer.state:
            raise ValueError("optimizer must have made a step, got one without: leave it out")
    for name, value in (values | numbers).items():
        _check_json(name, value)  # before any file is written
    data = begin(Path(folder))
    with _plain_errors(f"cannot write {folder}"):
        # Each rank writes its own shards; joining them in one file would take one rank's memory.
        writer = HuggingFaceStorageWriter(str(data), save_distributed=True)
        save_shards(_alone(tensors), storage_writer=writer)
    content = {"tensors": union(_shapes(tensors)), "values": union(values), "numbers": numbers}
    finish(Path(folder), data, content)


def load(
    folder: str | Path, model: nn.Module, optimizer: Optimizer | None = None
) -> dict[str, Number]:
    """Put model and optimizer where the saved ones stood. All ranks call it; gradients are dropped.

    Args:
        folder: that `save` has written, on any number of ranks.
        model: of the same shape, split in any way or not at all.
        optimizer: of the same kind, made for this model; None loads the model alone.

    Returns:
        The numbers that were saved with it.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is no checkpoint, an unfinished or damaged one, or of another model. The
            model is unchanged.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict import (
        set_model_state_dict,
        set_optimizer_state_dict,
    )
    from torch.distributed.checkpoint.state_dict_loader import load as load_shards

    data, index = read(Path(folder))
    model.zero_grad(set_to_none=True)  # else torch would not make the state of a new optimizer
    with _fresh_stays_fresh(optimizer):
        tensors, values = _state(model, optimizer)
        # Before anything is changed. Besides, torch passes over what only the checkpoint has.
        _compare(_shapes(tensors) | dict.fromkeys(values), index, optimizer is not None)
    with _plain_errors(f"cannot read {folder}"):
        load_shards(tensors, storage_reader=HuggingFaceStorageReader(str(data)))
    for name, value in values.items():
        saved = index["values"][name]
        values[name] = tuple(saved) if isinstance(value, tuple) else saved  # JSON has only lists
    state = tensors | values
    set_model_state_dict(model, _part(state, "model."))
    if optimizer is not None:
        set_optimizer_state_dict(model, optimizer, _part(state, "optimizer."), options=_flat())
    numbers: dict[str, Number] = index["numbers"]
    return numbers


def _state(
    model: nn.Module, optimizer: Optimizer | None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors, which are the model's own, and what is no tensor.

    Names are "model.NAME" and "optimizer.NAME".
    """
    from torch.distributed.checkpoint.state_dict import (
        get_model_state_dict,
        get_optimizer_state_dict,
    )

    # torch's functions, not `state_dict()`: they give the model's own names under DDP, and name an
    # optimizer's state so that it fits the same parameter on any number of ranks.
    state: dict[str, Any] = {f"model.{k}": v for k, v in get_model_state_dict(model).items()}
    if optimizer is not None:
        part = get_optimizer_state_dict(model, optimizer, options=_flat())
        state |= {f"optimizer.{k}": v for k, v in part.items()}
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in state.items() if name not in tensors}


def _flat() -> Any:
    """Name an optimizer's state after the parameters, not after their order on this rank."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(flatten_optimizer_state_dict=True)


def _part(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


@contextmanager
def _fresh_stays_fresh(optimizer: Optimizer | None) -> Iterator[bool]:
    """Undo the step without gradients by which torch makes an optimizer's state, on an error."""
    fresh = optimizer is not None and not optimizer.state
    try:
        yield fresh
    except BaseException:
        if fresh and optimizer is not None:
            optimizer.state.clear()
        raise


def _alone(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Return each tensor in memory of its own, row by row: safetensors takes no other."""
    seen: set[int] = set()
    alone: dict[str, Any] = {}
    for name, tensor in tensors.items():
        local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        address = local.untyped_storage().data_ptr()
        # Shards of one flat tensor, tied weights, and channels-last weights are none of the two.
        own = local.is_contiguous() and address not in seen
        alone[name] = tensor if own else tensor.clone(memory_format=torch.contiguous_format)
        seen.add(address)
    return alone


def _shapes(tensors: dict[str, Tensor]) -> dict[str, list[Any]]:
    """Return type and shape of each whole tensor."""
    return {name: [str(t.dtype), list(t.shape)] for name, t in tensors.items()}


def _compare(mine: dict[str, Any], index: dict[str, Any], with_optimizer: bool) -> None:
    """Refuse a checkpoint of another model before anything is changed."""
    here = union(mine)
    there = index["tensors"] | dict.fromkeys(index["values"])
    there = {k: v for k, v in there.items() if with_optimizer or not k.startswith("optimizer.")}
    for name in sorted(here.keys() | there.keys()):
        if name not in there or name not in here:
            where = "it" if name not in there else "the model or optimizer here"
            raise ValueError(f"checkpoint is of another model: {where} has no {name}")
        if here[name] != there[name]:
            raise ValueError(
                f"checkpoint is of another model: {name} is {there[name]} in it and {here[name]} "
                "here"
            )


def _check_json(name: str, value: object) -> None:
    try:
        json.dumps(value)
    except TypeError as error:
        raise TypeError(f"{name} must be a tensor, number or text, got {value!r}") from error


@contextmanager
def _plain_errors(words: str) -> Iterator[None]:
    """Raise OSError or ValueError in place of torch's own, which is no Exception."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        with warnings.catch_warnings():
            # torch says that it takes one process for granted where there is no process group
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            yield
    except CheckpointException as error:
        cause = next(iter(error.failures.values()))[0]
        kind = OSError if isinstance(cause, OSError) else ValueError
        raise kind(f"{words}: {cause}") from error
