"""What a loader keeps to itself is put back when an epoch is dealt again, wherever it is kept."""

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from labkit import checkpoint
from labkit.training import Training, train

DATA = TensorDataset(torch.arange(8.0)[:, None], torch.zeros(8, dtype=torch.long))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


class Drawing(Sampler[int]):
    """Deals from a generator of its own; `draw` says how."""

    def __init__(self, own: Any, draw: Callable[[Any], list[int]]) -> None:
        self.own, self.draw = own, draw

    def __iter__(self) -> Iterator[int]:
        return iter(self.draw(self.own))

    def __len__(self) -> int:
        return 8


class Counting(Drawing):
    """Deals each epoch by its number, which nobody tells it."""

    def __init__(self) -> None:
        super().__init__(0, lambda _: [])

    def __iter__(self) -> Iterator[int]:
        self.own += 1
        return iter(torch.randperm(8, generator=torch.Generator().manual_seed(self.own)).tolist())


class Reshuffling(Drawing):
    """Shuffles in place what the last epoch has left."""

    def __init__(self) -> None:
        super().__init__(list(range(8)), lambda _: [])

    def __iter__(self) -> Iterator[int]:
        random.Random(1).shuffle(self.own)
        return iter(list(self.own))


class Noisy(Dataset):
    """Draws from a generator of its own for every example."""

    def __init__(self) -> None:
        self.own = {"rng": numpy.random.default_rng(3)}

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.tensor([index + 10.0 * float(self.own["rng"].integers(9))]), 0

    def __len__(self) -> int:
        return 8


class Wrapped:
    """A loader of one's own around another."""

    def __init__(self, loader: DataLoader) -> None:
        self.loaders = [loader]

    def __len__(self) -> int:
        return len(self.loaders[0])

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loaders[0])


def by(sampler: Any) -> DataLoader:
    return DataLoader(DATA, batch_size=4, sampler=sampler)


def permuted(own: Any) -> list[int]:
    return own.permutation(8).tolist()


LOADERS: dict[str, Callable[[], Any]] = {
    "global": lambda: DataLoader(DATA, batch_size=4, shuffle=True),
    "its generator": lambda: DataLoader(DATA, batch_size=4, shuffle=True, generator=generator()),
    "worker": lambda: DataLoader(
        DATA, batch_size=4, shuffle=True, generator=generator(), num_workers=1,
        multiprocessing_context="fork",
    ),
    "random sampler": lambda: by(RandomSampler(DATA, generator=generator())),
    "weighted": lambda: by(WeightedRandomSampler([1.0] * 8, 8, generator=generator())),
    "subset": lambda: by(SubsetRandomSampler(range(8), generator=generator())),
    "batch sampler": lambda: DataLoader(
        DATA, batch_sampler=BatchSampler(RandomSampler(DATA, generator=generator()), 4, False)
    ),
    "numpy": lambda: by(Drawing(numpy.random.default_rng(1), permuted)),
    "old numpy": lambda: by(Drawing(numpy.random.RandomState(1), permuted)),
    "numpy's twister": lambda: by(
        Drawing(numpy.random.Generator(numpy.random.MT19937(1)), permuted)
    ),
    "python": lambda: by(Drawing(random.Random(1), lambda own: own.sample(range(8), 8))),
    "a count": lambda: by(Counting()),
    "a list": lambda: by(Reshuffling()),
    "data set": lambda: DataLoader(Noisy(), batch_size=4),
    "wrapped": lambda: Wrapped(DataLoader(DATA, batch_size=4, shuffle=True, generator=generator())),
    "distributed": lambda: by(DistributedSampler(DATA, num_replicas=1, rank=0)),
}  # fmt: skip
each_loader = pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)


CUTS = (1, 3, 4)  # in the first epoch, in the second, at its end


def training(loader: Any, seen: list[Any]) -> Training:
    torch.manual_seed(1)
    net = nn.Linear(1, 2)
    net.register_forward_pre_hook(lambda _, a: seen.append(a[0][:, 0].tolist()))
    return train(net, loader, torch.optim.SGD(net.parameters(), lr=0.01), epochs=3)


@each_loader
def test_a_resumed_training_sees_the_batches_that_were_left(make: Any, tmp_path: Path) -> None:
    seen: list[Any] = []
    whole = training(make(), seen)
    for step in whole:
        if step.index + 1 in CUTS:
            checkpoint.save(tmp_path / str(step.index + 1), whole)
    assert len({str(seen[place : place + 2]) for place in (0, 2, 4)}) == 3  # epochs differ
    for cut in CUTS:
        again: list[Any] = []
        resumed = training(make(), again)
        list(itertools.islice(resumed, 3 - cut % 4))  # it may have gone on for itself before
        again.clear()
        checkpoint.load(tmp_path / str(cut), resumed)
        list(resumed)
        assert again == seen[cut:], cut


@each_loader
def test_breaking_off_and_going_on_loses_no_batch(make: Any) -> None:
    seen: list[Any] = []
    broken: list[Any] = []
    list(training(make(), seen))
    run = training(make(), broken)
    for _ in range(2):
        list(itertools.islice(run, 3))
    assert broken == seen


@pytest.mark.parametrize("replicas", [1, 2])
def test_samplers_are_told_the_epoch_wherever_they_are(replicas: int) -> None:
    def sampler() -> Any:
        return DistributedSampler(DATA, num_replicas=replicas, rank=0)

    inner = BatchSampler(sampler(), 4, drop_last=False)
    for loader in (by(sampler()), DataLoader(DATA, batch_sampler=inner), Wrapped(by(sampler()))):
        seen: list[Any] = []
        list(training(loader, seen))
        size = 2 // replicas
        epochs = [seen[n * size : n * size + size] for n in range(3)]
        assert len(set(map(str, epochs))) == 3


def test_another_kind_of_loader_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    saved = training(LOADERS["its generator"](), [])
    list(itertools.islice(saved, 3))
    checkpoint.save(tmp_path / "run", saved)
    other = training(LOADERS["global"](), [])
    weights = other.model.weight.detach().clone()
    with pytest.raises(ValueError, match=r"of another kind than the checkpoint's: .*generator"):
        checkpoint.load(tmp_path / "run", other)
    assert torch.equal(other.model.weight, weights) and other.index == 0


def test_an_epoch_that_has_become_shorter_is_refused(tmp_path: Path) -> None:
    batches = [(torch.zeros(4, 1), torch.zeros(4, dtype=torch.long))] * 3
    saved = training(batches, [])
    list(itertools.islice(saved, 3))
    checkpoint.save(tmp_path / "run", saved)
    shorter = training(batches, [])
    shorter.stream.batches = batches[:2]
    checkpoint.load(tmp_path / "run", shorter)
    with pytest.raises(ValueError, match="gave 2 in epoch 0, where it gave 3 before"):
        list(shorter)


class Stream(IterableDataset):
    def __iter__(self) -> Iterator[Any]:
        yield from ((torch.randn(1), 0) for _ in range(8))


class Unmeasured:
    def __len__(self) -> int:
        raise OSError("the server does not say")

    def __iter__(self) -> Iterator[Any]:
        return iter(())


@pytest.mark.parametrize(
    "batches", [DataLoader(Stream(), batch_size=4), Unmeasured(), (b for b in ())]
)
def test_without_a_length_steps_are_asked_for(batches: Any) -> None:
    net = nn.Linear(1, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(TypeError, match="batches has no length, .*: give steps instead"):
        train(net, batches, optimizer)
    assert len(list(train(net, DataLoader(Stream(), batch_size=4), optimizer, steps=5))) == 5
