"""Tell values apart by what they hold: the text of a fingerprint is equal where the values are.

Two settings that print alike can differ: a lambda is "<lambda>" whatever it does, and two data sets
can share name and size. So a value is followed down to what it is made of: the function and all
arguments of a partial, the fields of a dataclass, the numbers of a tensor, the weights of a module.
A function or class counts by its name if it can be imported by it, so that a result from yesterday
can be compared with one of today.

What cannot be followed (a lambda, a function of a notebook's cell, an object that only Python knows
by its address) counts as equal to nothing but itself, in this process. Better to call two equal
things different than to compare two different ones as equal.
"""

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache, partial

import numpy
import torch
from torch import Tensor, nn

_PLAIN = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    torch.dtype,
    torch.device,
    torch.memory_format,
)

_KEPT: dict[int, object] = {}
"""What is known by its address: it must live on, or the next one could get the same address."""


def fingerprint(value: object) -> str:
    """Return a text that is the same for values that are the same.

    Args:
        value: anything. An attribute `fingerprint` of its own (a text) comes first.
    """
    own = getattr(value, "fingerprint", None)
    if isinstance(own, str):
        return f"{_class(value)}:{own}"
    if isinstance(value, numpy.generic):  # a number, as Python's
        value = value.item()
    if isinstance(value, _PLAIN):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, Enum):
        return f"{_class(value)}.{value.name}"
    if isinstance(value, Tensor):
        return f"tensor {value.dtype} {tuple(value.shape)} {tensor_hash(value)}"
    if isinstance(value, nn.Module):
        # Heads, causality or the mode stand in attributes that neither text nor weights show.
        settings = {
            name: {key: held for key, held in vars(part).items() if key[0] != "_"}
            for name, part in value.named_modules()
        }
        return (
            f"{_class(value)} {value!r} {fingerprint(settings)} {fingerprint(value.state_dict())}"
        )
    if isinstance(value, partial):
        return f"partial({', '.join(map(fingerprint, (value.func, value.args, value.keywords)))})"
    if is_dataclass(value) and not isinstance(value, type):
        held = {field.name: getattr(value, field.name) for field in fields(value)}
        return f"{_class(value)}{fingerprint(held)}"
    if isinstance(value, Mapping):
        pairs = (f"{fingerprint(key)}: {fingerprint(entry)}" for key, entry in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__}({', '.join(map(fingerprint, value))})"
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}({', '.join(sorted(map(fingerprint, value)))})"
    if name := _named(value):
        return name
    _KEPT[id(value)] = value
    return f"{_class(value)} known to this process alone: {id(value)}@{_process()}"


def tensor_hash(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor's numbers, in hexadecimal digits."""
    flat = tensor.detach().cpu().to_dense().contiguous().view(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).hexdigest()


def _class(value: object) -> str:
    return fingerprint(type(value))


def _named(value: object) -> str | None:
    """Return module and name of what can be imported by them, else None."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    # "__main__" is the notebook or script at hand: tomorrow its names may mean something else.
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__":
        return None
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}.{name}" if found is value else None


@cache
def _process() -> str:
    return os.urandom(8).hex()
