"""Errors of arguments: each names the argument, what came, and what would be right."""

from collections.abc import Iterator
from contextlib import contextmanager
from dis import opmap
from math import inf
from numbers import Integral, Real
from typing import NoReturn

import torch
from torch import Tensor


def check_positive_int(name: str, value: object) -> None:
    """Raise a ValueError that names the argument unless `value` is a whole number of at least 1."""
    check_whole(name, value, 1)


def check_whole(name: str, value: object, lowest: int, highest: int | None = None) -> None:
    """Raise a ValueError that names the argument unless it is a whole number within bounds.

    NumPy's whole numbers are as good as Python's; True and False are none.
    """
    # An Integral compares like an int, which mypy does not know.
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < lowest or (highest is not None and value > highest):  # type: ignore[operator]
        bounds = f"of at least {lowest}" if highest is None else f"from {lowest} to {highest}"
        raise ValueError(f"{name} must be a whole number {bounds}, got {value!r}")


def check_number(name: str, value: object, *, zero: bool = False) -> None:
    """Raise a ValueError that names the argument unless it is a finite number above 0 (or 0)."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not 0 <= value < inf or (value == 0 and not zero):  # type: ignore[operator]
        kind = "finite number of at least 0" if zero else "positive number"
        raise ValueError(f"{name} must be a {kind}, got {value!r}")


def device_of(device: torch.device | str) -> torch.device:
    """Return a device that can be used here.

    Raises:
        ValueError: there is no such device on this machine.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device must be one of this machine, got {device!r}: {reason}") from error
    return torch.device(device)


@contextmanager
def explaining(what: str, *given: object) -> Iterator[None]:
    """Say what failed, and on what, if other code than ours raises in the block; see `explain`."""
    try:
        yield
    except Exception as error:
        explain(error, what, *given)


FOREIGN = {
    *(AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError),
    *(TypeError, ValueError),
}
"""What torch raises where shapes, dtypes or values do not fit. Subclasses, such as that of a full
memory, say themselves what they are."""


def explain(error: Exception, what: str, *given: object) -> NoReturn:
    """Raise an error in our words for one that came out of a model, a loss or torch.

    "mat1 and mat2 must have the same dtype" says neither whose they are nor where. An error of
    ours says so already, and is raised as it is.

    Raises:
        ValueError: what failed, shapes and dtypes of what was given, and the error itself.
    """
    if type(error) not in FOREIGN or _is_ours(error):
        raise error
    shown = f" on {', '.join(map(form, given))}" if given else ""
    reason = "; ".join([str(error).partition("\n")[0], *getattr(error, "__notes__", ())])
    raise ValueError(f"{what} failed{shown}: {type(error).__name__}: {reason}") from error


def _is_ours(error: Exception) -> bool:
    """Return whether a `raise` of labkit made it, and not a call that failed in labkit."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not trace.tb_frame.f_globals.get("__name__", "").startswith("labkit."):
        return False
    return trace.tb_frame.f_code.co_code[trace.tb_lasti] == opmap["RAISE_VARARGS"]


def form(value: object) -> str:
    """Return what a nesting of tensors is made of, such as "(float32 (8, 3), int64 (8,))"."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)}".removeprefix("torch.")
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {form(part)}' for key, part in value.items())}}}"
    if isinstance(value, tuple | list):
        more = ", …" if len(value) > 4 else ""
        return f"({', '.join(map(form, value[:4]))}{more})"
    return type(value).__name__
