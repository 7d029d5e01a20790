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
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from labkit.distributed.parallel.checkpoint_folder import begin, finish, read, union

Number = int | float | str | bool | None
STATE, GROUPS = "optimizer.state.", "optimizer.param_groups."


def save(
    folder: str | Path, model: nn.Module, optimizer: Optimizer | None = None, **numbers: Number
) -> None:
    """Write model and optimizer to `folder`, whole or not at all. All ranks call it.

    Args:
        folder: new, or of an earlier call; the earlier checkpoint is removed at the end.
        model: this rank's share; parameters are tensors or DTensors. A plain tensor that several
            ranks name alike must be the same on all of them.
        optimizer: of this model; of a `Sharded`, its `whole_optimizer()`.
        numbers: what else belongs to it, such as `step=120`; the same on all ranks.

    Raises:
        ValueError: `folder` holds something else, the optimizer is of another model, or the model
            was cut by `tensor.split`.
        TypeError: a state or one of `numbers` is neither a tensor nor fit for JSON.
        OSError: the folder cannot be written; an earlier checkpoint stays as it was.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save as save_shards

    if any(hasattr(module, "joined_norm") for module in model.modules()):
        raise ValueError("model must not be cut by split: each rank names its own parts alike")
    state: dict[str, Any] = _model_state(model)
    for name, parameter, group in _trained(model, optimizer):
        states = optimizer.state.get(parameter, {}) if optimizer is not None else {}
        state |= {f"{STATE}{name}.{key}": value for key, value in states.items()}
        state |= {f"{GROUPS}{name}.{k}": v for k, v in group.items() if k != "params"}
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    values = {name: value for name, value in state.items() if name not in tensors}
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

    A parameter that had no state in the optimizer, such as one not trained so far, has none then.

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
    from torch.distributed.checkpoint.state_dict import set_model_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load as load_shards

    data, index = read(Path(folder))
    tensors, trained = _model_state(model), _trained(model, optimizer)
    groups = {f"{GROUPS}{name}.{key}": None for name, _, group in trained for key in group}
    # Before anything is changed. Besides, torch passes over what only the checkpoint has.
    there = {n: shape for n, shape in index["tensors"].items() if n.startswith("model.")}
    if optimizer is not None:
        there |= {n: None for n in index["values"] | index["tensors"] if n.startswith(GROUPS)}
    _compare(union(_shapes(tensors) | groups), there)
    _check_groups(trained, _by_parameter(index["values"]))
    tensors |= _room(trained, index["tensors"])
    with _plain_errors(f"cannot read {folder}"):
        load_shards(tensors, storage_reader=HuggingFaceStorageReader(str(data)))
    model.zero_grad(set_to_none=True)
    names = [name for name in tensors if name.startswith("model.")]
    set_model_state_dict(model, {name.removeprefix("model."): tensors[name] for name in names})
    if optimizer is not None:
        saved = _by_parameter(index["values"] | tensors)
        for name, parameter, group in trained:
            optimizer.state[parameter] = saved[STATE, name]
            for key, value in saved[GROUPS, name].items():  # JSON has only lists
                group[key] = tuple(value) if isinstance(group.get(key), tuple) else value
    numbers: dict[str, Number] = index["numbers"]
    return numbers


def _model_state(model: nn.Module) -> dict[str, Any]:
    from torch.distributed.checkpoint.state_dict import get_model_state_dict

    # Not `state_dict()`: this one gives the model's own names, under DDP as well.
    return {f"model.{name}": value for name, value in get_model_state_dict(model).items()}


def _trained(
    model: nn.Module, optimizer: Optimizer | None
) -> list[tuple[str, Tensor, dict[str, Any]]]:
    """Return name, parameter and group of all that the optimizer holds.

    By name, because a parameter's number depends on what else this rank has. What torch's own
    function returns has states for all that can be trained, whether it was or not.
    """
    while isinstance(model, nn.parallel.DistributedDataParallel):
        model = model.module
    names = {p: name.replace("_orig_mod.", "") for name, p in model.named_parameters()}
    groups = [] if optimizer is None else optimizer.param_groups
    found = [(names.get(p, ""), p, group) for group in groups for p in group["params"]]
    if not all(name for name, *_ in found):
        raise ValueError(
            "optimizer must hold parameters of the model only; of a Sharded, give whole_optimizer()"
        )
    return found


def _check_groups(
    trained: list[tuple[str, Tensor, dict[str, Any]]], saved: Mapping[tuple[str, str], Any]
) -> None:
    """Refuse to give the parameters of one group the settings of several."""
    settings: dict[int, Any] = {}
    for name, _, group in trained:
        if settings.setdefault(id(group), saved[GROUPS, name]) != saved[GROUPS, name]:
            raise ValueError(f"checkpoint has {name} in another parameter group than the optimizer")


def _by_parameter(state: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return {(STATE or GROUPS, parameter): {key: value}} of the optimizer's part of a state."""
    found = defaultdict[tuple[str, str], dict[str, Any]](dict)
    for full, value in state.items():
        for kind in (STATE, GROUPS):
            if full.startswith(kind):
                name, _, key = full.removeprefix(kind).rpartition(".")
                found[kind, name][key] = value
    return found


def _room(
    trained: list[tuple[str, Tensor, dict[str, Any]]], saved: dict[str, list[Any]]
) -> dict[str, Tensor]:
    """Return empty tensors for what was saved of an optimizer, split as its parameters are here."""
    room, there = {}, _by_parameter(saved)
    for name, parameter, _ in trained:
        for kind in (STATE, GROUPS):
            for key, (dtype, shape) in there[kind, name].items():
                like = parameter if list(parameter.shape) == shape else torch.empty(shape)
                made = torch.empty_like(like, dtype=getattr(torch, dtype.removeprefix("torch.")))
                room[f"{kind}{name}.{key}"] = made
    return room


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


def _compare(here: dict[str, Any], there: dict[str, Any]) -> None:
    """Refuse a checkpoint of another model before anything is changed."""
    for name in sorted(here.keys() ^ there.keys()):
        if not name.endswith((".params", ".initial_lr")):  # schedules add the second one
            where = "it" if name not in there else "the model or optimizer here"
            raise ValueError(f"checkpoint is of another model: {where} has no {name}")
    for name in sorted(here.keys() & there.keys()):
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
