"""accelerate as its guides show it: the data is prepared too.

It prepares nothing but torch's DataLoader, so the ready batches go through one, whose own cost
(some 10 microseconds a batch) is part of this arm and of no other.
"""

from collections.abc import Iterator
from pathlib import Path

from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from benchmarks.arms.with_accelerate import loop
from benchmarks.arms.work import Batch, Clocked, optimizer


class Stream(IterableDataset):
    """Ready batches, as a data set that a DataLoader with batch_size=None passes on."""

    def __init__(self, data: Clocked) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.data)


def fit(model: nn.Module, data: Clocked, folder: Path) -> None:
    accelerator = Accelerator(cpu=True)
    loader = DataLoader(Stream(data), batch_size=None)
    loop(accelerator, *accelerator.prepare(model, optimizer(model.parameters()), loader))
