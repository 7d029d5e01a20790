"""Is a checkpoint one of this training? Found out before anything is changed."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

WRAPPED, WRAPPED_ALL = ("_orig_mod.", "_checkpoint_wrapped_module."), "module."
"""What stands in the names of weights where torch.compile or checkpointing wraps a module; and
before all of them, where data parallel wraps the model."""


def fitted(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's state with the weights under the names that they have here.

    Args:
        theirs: the checkpoint's state.
        mine: this training's.

    Raises:
        ValueError: the checkpoint lacks something, or is of another model, optimizer, length or
            precision.
    """
    if missing := mine.keys() - theirs.keys():
        lacking = ", ".join(sorted(missing))
        raise ValueError(f"not a whole checkpoint of a training: it lacks {lacking}")
    here = plain_names(mine["model"])
    weights = {here.get(n, n): theirs["model"][k] for n, k in plain_names(theirs["model"]).items()}
    check_same("model", _forms(weights), _forms(mine["model"]))
    check_same("optimizer", theirs["optimizer_form"], mine["optimizer_form"])
    for name in ("total", "precision"):
        if theirs[name] != mine[name]:
            raise ValueError(
                f"the checkpoint's {name} is {theirs[name]!r}, this training's is {mine[name]!r}"
            )
    if theirs["between_kinds"] != mine["between_kinds"]:
        raise ValueError(
            f"between the steps of the checkpoint's training: {theirs['between_kinds']}, of this "
            f"one: {mine['between_kinds']}"
        )
    return {**theirs, "model": weights}


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Return {name in the model itself: name} of the weights of a model that may be wrapped."""
    plain = {name: name for name in names}
    for wrapper in WRAPPED:
        plain = {name.replace(wrapper, ""): full for name, full in plain.items()}
    while plain and all(name.startswith(WRAPPED_ALL) for name in plain):
        plain = {name.removeprefix(WRAPPED_ALL): full for name, full in plain.items()}
    return plain


def check_same(what: str, theirs: Mapping[str, str], mine: Mapping[str, str]) -> None:
    """Raise a ValueError that names the first part of a model or an optimizer that differs."""
    for name in [*mine, *theirs]:
        there, here = (forms.get(name, "missing") for forms in (theirs, mine))
        if there != here:
            raise ValueError(
                f"the checkpoint is of another {what}: {name} is {there} there and {here} here"
            )


def optimizer_form(optimizer: torch.optim.Optimizer) -> dict[str, str]:
    """Return in words what decides whether a state fits: kind, settings and shapes of all groups.

    torch asks only how many groups and parameters there are, and then fails in the next step.
    """
    form = {"its kind": type(optimizer).__qualname__}
    for number, group in enumerate(optimizer.param_groups):
        settings = sorted(group.keys() - {"params", "initial_lr"})
        form[f"what is set of group {number}"] = ", ".join(settings)
        for place, parameter in enumerate(group["params"]):
            form[f"parameter {place} of group {number}"] = str(tuple(parameter.shape))
    return form


def _forms(weights: Mapping[str, Any]) -> dict[str, str]:
    return {name: _form(value) for name, value in weights.items()}


def _form(value: Any) -> str:
    if not isinstance(value, Tensor):  # what a module adds to its state
        return type(value).__name__
    kind = "" if value.dtype == torch.float32 else f" {value.dtype}".replace("torch.", "")
    return f"{tuple(value.shape)}{kind}"
