"""The global random generators: seed them, remember where they stand, put them back.

Whoever measures in the middle of a training must not draw from its generators; whoever resumes one
must put them back where they stood. Both need all of them: Python's, NumPy's, and torch's on each
device.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import torch

from labkit.checks import check_whole

HIGHEST_SEED = 2**32 - 1
"""NumPy takes no higher one."""


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators (all devices).

    Raises:
        ValueError: `seed` is not in 0 … 2**32 - 1, the range that NumPy takes.
    """
    check_seed(seed)
    random.seed(int(seed))
    numpy.random.seed(seed)
    torch.manual_seed(int(seed))


def check_seed(seed: object) -> None:
    """Raise a ValueError unless `seed` is a whole number from 0 to 2**32 - 1."""
    check_whole("seed", seed, 0, HIGHEST_SEED)


def rng_state() -> dict[str, Any]:
    """Return the state of all global generators, in types that `weights_only=True` loads."""
    return {
        "python": random.getstate(),
        "numpy": without_arrays(numpy.random.get_state(legacy=False)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def without_arrays(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state of one of NumPy's generators with lists in place of arrays, for a file."""
    lists = {key: value.tolist() for key, value in state.items() if hasattr(value, "tolist")}
    nested = {key: without_arrays(value) for key, value in state.items() if isinstance(value, dict)}
    return {**state, **lists, **nested}


def set_rng_state(state: dict[str, Any]) -> None:
    """Put all global generators back into a state that `rng_state` returned."""
    kind, major, gauss = state["python"]
    random.setstate((kind, tuple(major), gauss))
    numpy.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def kept_rng() -> Iterator[None]:
    """Put all global generators back to where they stood, also when the block raises."""
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)
