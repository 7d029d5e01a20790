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


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators (all devices).

    Raises:
        ValueError: `seed` is not in 0 … 2**32 - 1, the range that NumPy takes.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ValueError(f"seed must be a whole number from 0 to 2**32 - 1, got {seed!r}")
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """Return the state of all global generators, in types that `weights_only=True` loads."""
    state = numpy.random.get_state(legacy=False)
    return {
        "python": random.getstate(),
        "numpy": {**state, "state": {**state["state"], "key": state["state"]["key"].tolist()}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


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
