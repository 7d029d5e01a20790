"""Save a training and resume it to the bit.

A checkpoint that holds only weights resumes a different training: momentum starts at zero, the
schedule at its beginning, and the data are dealt anew. Here all that the next step depends on is
saved: model, optimizer, step number (the schedule is a function of it), loss scaler, place in the
data, what the generators between the steps remember, random generators.

The file is written under a temporary name and renamed: whoever kills the process, the old
checkpoint or the new one is there, whole. It is read with `weights_only=True`: an ordinary pickle
can run any code when it is opened, and is refused. A SHA-256 over the content tells damage.
"""

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy
import torch
from torch import Tensor

from labkit.files import atomic_path
from labkit.training.run import Training

MAGIC = b"labkit checkpoint 2\n"


def save(path: str | Path, training: Training) -> None:
    """Write the state of `training` to `path`, whole or not at all.

    Raises:
        OSError: the folder cannot be written or the disk is full; an older file stays as it was.
    """
    write_state(path, training.state_dict())


def load(path: str | Path, training: Training) -> None:
    """Put `training`, made with the same arguments, where the saved one stood.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint, damaged, or of another model; `training` is unchanged.
    """
    training.load_state_dict(read_state(path))


def write_state(path: str | Path, state: dict[str, Any]) -> None:
    """Write a dictionary of tensors, numbers, texts and lists of them; errors as in `save`.

    Raises:
        TypeError: it holds something else, which could not be read again.
    """
    buffer = io.BytesIO()
    torch.save(_readable("state", state), buffer)
    content = buffer.getbuffer()
    with atomic_path(Path(path)) as temporary, temporary.open("wb") as file:
        file.write(MAGIC + hashlib.sha256(content).digest())
        file.write(content)


def read_state(path: str | Path) -> dict[str, Any]:
    """Return what `write_state` wrote, all tensors on the CPU; errors as in `load`.

    Whoever takes them moves those that belong on another device. Some never do: the states of
    generators, an optimizer's count of steps.
    """
    content = Path(path).read_bytes()
    start = len(MAGIC) + hashlib.sha256().digest_size
    head, digest, content = content[: len(MAGIC)], content[len(MAGIC) : start], content[start:]
    if head != MAGIC:
        raise ValueError(
            f"{path} is not a labkit checkpoint. If it is a pickle it was not opened: a pickle "
            "can run any code"
        )
    if hashlib.sha256(content).digest() != digest:
        raise ValueError(f"checkpoint {path} is damaged: truncated or changed after it was saved")
    try:
        state: dict[str, Any] = torch.load(
            io.BytesIO(content), map_location="cpu", weights_only=True
        )
    except (pickle.UnpicklingError, RuntimeError, EOFError, BadZipFile) as error:
        raise ValueError(f"checkpoint {path} cannot be read: {error}") from error
    return state


def _readable(where: str, value: Any) -> Any:
    """Return what can be read without running code; NumPy's numbers become Python's."""
    if isinstance(value, numpy.generic):
        return value.item()
    if isinstance(value, dict):
        parts = {key: _readable(f"{where}.{key}", part) for key, part in value.items()}
        # A model's state is more than a dictionary: it knows the versions of its modules.
        return parts if type(value) is dict else value
    if isinstance(value, list | tuple):
        held = [_readable(f"{where}.{number}", part) for number, part in enumerate(value)]
        return tuple(held) if isinstance(value, tuple) else held
    if not isinstance(value, _READABLE):
        raise TypeError(f"{where} is a {type(value).__name__}, which no checkpoint can hold")
    return value


_READABLE = (
    Tensor,
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    set,
    torch.dtype,
    torch.device,
    type(None),
)
