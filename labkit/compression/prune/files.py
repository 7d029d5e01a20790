"""Pruned models as files: their tensors, and the widths of their layers.

A pruned model is one of the same class with narrower layers, so its `state_dict` does not load into
a new one. Here the new one is made as narrow first: no example, no graph and no list of what was
kept is needed, and it may have been pruned more than once.

    prune.save(smaller, "smaller.pt")
    smaller = prune.load("smaller.pt", models.convnet())     # any weights; the file has them
"""

from pathlib import Path

from torch import Tensor, nn

from labkit.compression.checks import check_own_weights, copied
from labkit.compression.prune.removal import owners_of
from labkit.compression.prune.stand_ins import attribute
from labkit.training.checkpoint import read_state, write_state

KIND = "labkit pruned model"
WIDTHS = (
    *("in_features", "out_features", "in_channels", "out_channels", "groups"),
    *("num_features", "num_groups", "num_channels", "num_parameters"),
)


def save(model: nn.Module, path: str | Path) -> None:
    """Write a model of `channels`, `remove_channels` or `remove_lossless`, whole or not at all.

    Like a `state_dict`, the file does not hold the architecture. Nothing in it can run code.

    Raises:
        TypeError: `model` is not a module.
        ValueError: a weight that is computed from others.
        OSError: the folder cannot be written or the disk is full; an older file stays as it was.
    """
    check_own_weights(model)
    tensors = {n: t.detach() for n, t in model.state_dict().items() if isinstance(t, Tensor)}
    write_state(path, {"kind": KIND, "tensors": tensors, "widths": _widths(model)})


def load(path: str | Path, model: nn.Module) -> nn.Module:
    """Return the pruned model that was saved.

    Args:
        path: of a file that `save` wrote.
        model: of the class that was pruned, as wide as it was then, with any weights; left
            untouched. The loaded one has its mode and device.

    Raises:
        TypeError: `model` is not a module.
        FileNotFoundError: no such file.
        ValueError: not such a file, damaged, or of another architecture.
    """
    smaller, state = copied(model), read_state(path)
    if state.get("kind") != KIND:
        raise ValueError(f"{path} was not written by prune.save")
    _check_fits(smaller, state["tensors"], path)
    owners, done = owners_of(smaller), set[int]()
    for name, tensor in state["tensors"].items():
        holder, _, last = name.rpartition(".")
        old = attribute(smaller, name)
        new = tensor if old is None else tensor.to(old.device)
        if old is None or isinstance(old, nn.Parameter):  # None: a bias that took what is constant
            new = nn.Parameter(new, requires_grad=old is None or old.requires_grad)
        if id(old) not in done:  # else tied to one that came before
            alone = [(smaller.get_submodule(holder), last)]
            for module, held in alone if old is None else owners[id(old)]:
                setattr(module, held, new)
            done.add(id(new))
    for path_of, widths in state["widths"].items():
        for width, value in widths.items():
            setattr(smaller.get_submodule(path_of), width, value)
    return smaller


def _widths(model: nn.Module) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for name, module in model.named_modules():
        held = {w: vars(module)[w] for w in WIDTHS if isinstance(vars(module).get(w), int)}
        if held:
            found[name] = held
    return found


def _check_fits(model: nn.Module, tensors: dict[str, Tensor], path: str | Path) -> None:
    """Refuse a file whose tensors are not those of the model, or wider."""
    held: dict[str, Tensor | None] = {}
    for place, module in model.named_modules():
        own = {**module._parameters, **module._buffers}
        held.update({f"{place}.{name}".lstrip("."): tensor for name, tensor in own.items()})
    for name in sorted({*model.state_dict(), *tensors}):
        here, there = held.get(name), tensors.get(name)
        if there is None or name not in held or (here is not None and not _within(there, here)):
            sizes = [tuple(t.shape) if t is not None else "missing" for t in (there, here)]
            raise ValueError(
                f"{path} holds a pruned model of another class or width: {name} is {sizes[0]} "
                f"there and {sizes[1]} here"
            )


def _within(small: Tensor, big: Tensor) -> bool:
    sizes = zip(small.shape, big.shape, strict=False)
    return small.ndim == big.ndim and all(s <= b for s, b in sizes)
