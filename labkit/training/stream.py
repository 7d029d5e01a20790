"""An endless stream of batches, epoch after epoch, that can be continued in mid-epoch.

Any iterable will do: labkit's Batches, a torch DataLoader, a list. Continuing needs no help from
it either. The stream remembers how many batches of the epoch were used, and the state of the
random generators when the epoch began; to continue, it puts that state back, draws as many batches
as were used, and drops them. So even a DataLoader that shuffles from the global generator deals
the same cards again.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from labkit.seeds import rng_state, set_rng_state
from labkit.training.task import Batch


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
        self._epoch_rng = rng_state()
        self._used = (0, 0, self._epoch_rng)  # epoch, batches, generators at its start

    def commit(self) -> None:
        """Mark all batches drawn so far as used: a stream continues after them."""
        self._used = (self.epoch, self._drawn, self._epoch_rng)

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches without end, starting after the last one that was committed.

        Raises:
            ValueError: an epoch is empty.
        """
        self.epoch, skip, epoch_rng = self._used
        if skip:
            now = rng_state()
            set_rng_state(epoch_rng)
            yield from self._one_epoch(skip, then=now)
            self.epoch += 1
        while True:
            yield from self._one_epoch(0)
            self.epoch += 1

    def _one_epoch(self, skip: int, then: dict[str, Any] | None = None) -> Iterator[Batch]:
        # A DataLoader has no epochs, but its sampler may: DistributedSampler deals every epoch in
        # the same order unless it is told.
        dealers: list[Any] = [self.batches]
        dealers += [getattr(self.batches, name, None) for name in ("sampler", "batch_sampler")]
        for dealer in dealers:
            if hasattr(dealer, "set_epoch"):
                dealer.set_epoch(self.epoch)
        self._epoch_rng, self._drawn = rng_state(), 0
        for batch in self.batches:
            self._drawn += 1
            if self._drawn <= skip:
                if self._drawn == skip and then is not None:
                    set_rng_state(then)
                continue
            # On a CPU they are there already: walking through them would cost microseconds.
            yield batch if self._on_cpu else to_device(batch, self.device)
        if self._drawn == 0:
            raise ValueError(
                f"batches gave nothing in epoch {self.epoch}: it is empty, or a generator that "
                "can be iterated only once"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the place after the last committed batch."""
        epoch, used, epoch_rng = self._used
        return {"epoch": epoch, "used": used, "epoch_rng": epoch_rng}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a place; takes effect with the next iteration."""
        self._used = (state["epoch"], state["used"], state["epoch_rng"])
        self.epoch = state["epoch"]


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
