"""An endless stream of batches, epoch after epoch, that can be continued in mid-epoch.

Any iterable will do: labkit's Batches, a torch DataLoader, a list. Continuing needs no help from
it either. The stream remembers how many batches of the epoch were used, and the state of the
random generators when the epoch began, those of the loader included; to continue, it puts that
state back, draws as many batches as were used, and drops them. So even a DataLoader that shuffles
from a generator deals the same cards again.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from labkit.seeds import rng_state, set_rng_state
from labkit.training.loader import Loader
from labkit.training.task import Batch


class Place(NamedTuple):
    """After so many batches of an epoch; and how all generators stood when it began."""

    epoch: int
    used: int
    epoch_rng: dict[str, Any]
    loader: dict[str, Any]


class EpochStream:
    """Batches of epoch 0, 1, 2 … on `device`; `commit` marks those drawn so far as used.

    Attributes:
        epoch: of the last batch drawn, from 0.
    """

    def __init__(self, batches: Iterable[Batch], device: torch.device) -> None:
        self.batches, self.device = batches, device
        self._on_cpu = device.type == "cpu"
        self.epoch = 0
        self._drawn = 0  # batches of this epoch
        self._loader = Loader(batches)
        self._epoch_rng, self._memory = rng_state(), self._loader.remember()
        self.commit()

    def commit(self) -> None:
        """Mark all batches drawn so far as used: a stream continues after them."""
        self._used = Place(self.epoch, self._drawn, self._epoch_rng, self._memory)

    def windows(self, size: int) -> Iterator[list[Batch]]:
        """Yield lists of `size` batches without end, starting after the last that was committed.

        A window never runs from one epoch into the next: the last one of an epoch holds those that
        are left.

        Raises:
            ValueError: an epoch is empty, or shorter than it was before.
        """
        self.epoch, skip, epoch_rng, memory = self._used
        now = None
        if skip:
            now = rng_state()
            set_rng_state(epoch_rng)
            self._loader.recall(memory)
        while True:
            epoch = self._one_epoch(skip, then=now)
            while window := list(islice(epoch, size)):
                yield window
            self.epoch += 1
            skip = 0

    def _one_epoch(self, skip: int, then: dict[str, Any] | None) -> Iterator[Batch]:
        self._memory = self._loader.remember()
        self._loader.set_epoch(self.epoch)
        self._epoch_rng, self._drawn = rng_state(), 0
        for batch in self.batches:
            self._drawn += 1
            if self._drawn == 1:
                self._loader.watch()
            if self._drawn <= skip:
                if self._drawn == skip and then is not None:
                    set_rng_state(then)
                continue
            # On a CPU they are there already: walking through them would cost microseconds.
            yield batch if self._on_cpu else to_device(batch, self.device)
        self._loader.watch()
        if self._drawn < max(skip, 1):
            raise ValueError(
                f"batches gave {self._drawn or 'nothing'} in epoch {self.epoch}"
                + (f", where it gave {skip} before" if skip else "")
                + ": it is empty, or a generator that can be iterated only once"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the place after the last committed batch."""
        return self._used._asdict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a place; takes effect with the next iteration.

        Raises:
            ValueError: the batches are of another kind.
        """
        place = Place(**state)
        self._loader.recall(place.loader)  # also where no batch of the epoch was used yet
        self._used, self.epoch = place, place.epoch


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return a nesting of tuples, lists and dictionaries with all its tensors on `device`."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):  # a named tuple
        return type(batch)(*(to_device(part, device) for part in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(to_device(part, device) for part in batch)
    return batch
