"""Sums through shared memory are those that torch's all-reduce gives, and leave nothing behind."""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import sleep

import pytest
import torch
import torch.distributed as dist

from labkit.distributed import RankError, init, launch
from labkit.distributed.collectives.shared_memory import shared_memory

LARGEST = 240


def sums(messages: int, late: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return (torch's sum, ours) of messages of several shapes, while one rank lags behind."""
    shapes = [(LARGEST,), (3, 5), (), (2, 3, 4, 5), (1,)]
    with init() as world:
        all_reduce = shared_memory(LARGEST)
        torch.manual_seed(world.rank)
        found = []
        for message in range(messages):
            tensor = torch.randn(shapes[message % len(shapes)])
            if tensor.ndim == 4:
                tensor = tensor.contiguous(memory_format=torch.channels_last)
            wanted = tensor.clone()
            dist.all_reduce(wanted)
            if world.rank == late:
                sleep(0.002)
            all_reduce(tensor)
            found.append((wanted, tensor))
    return found


@pytest.mark.parametrize(("ranks", "late"), [(1, 0), (2, 0), (2, 1), (4, 2)])
def test_sums_are_torchs(ranks: int, late: int) -> None:
    of_ranks = launch(sums, ranks, deadline=60, messages=25, late=late)
    for of_one in of_ranks:
        for (wanted, got), (_, first) in zip(of_one, of_ranks[0], strict=True):
            torch.testing.assert_close(got, wanted)
            assert torch.equal(got, first)  # the same bits on all ranks


def test_rows_are_not_overwritten_while_somebody_reads() -> None:
    def many() -> bool:
        with init() as world:
            all_reduce = shared_memory(100_000)
            right = True
            for message in range(200):
                tensor = torch.full((100_000,), float(message))
                all_reduce(tensor)
                right &= bool((tensor == world.size * message).all())
        return right

    assert launch(many, 2, deadline=60) == [True, True]


def test_no_file_is_left(tmp_path: Path) -> None:
    def files() -> list[str]:
        tempfile.tempdir = str(tmp_path)
        with init():
            all_reduce = shared_memory(10)
            left = [str(path) for path in tmp_path.iterdir()]
            all_reduce(torch.zeros(10))
        return left

    assert launch(files, 2, deadline=60) == [[], []]
    assert list(tmp_path.iterdir()) == []


def test_float64() -> None:
    def third() -> float:
        with init():
            tensor = torch.tensor(1 / 3, dtype=torch.float64)
            shared_memory(1, torch.float64)(tensor)
        return tensor.item()

    assert launch(third, 2, deadline=60) == [2 / 3, 2 / 3]


@pytest.mark.parametrize(
    ("tensor", "named"),
    [
        (torch.zeros(11), "at most 10 elements, got torch.float32, cpu, 11"),
        (torch.zeros(3, dtype=torch.float64), "got torch.float64"),
        (torch.zeros(3, device="meta"), "on the CPU"),
    ],
)
def test_wrong_tensors(tensor: torch.Tensor, named: str) -> None:
    def wrong() -> str:
        with init():
            all_reduce = shared_memory(10)
            try:
                all_reduce(tensor)
            except ValueError as error:
                return str(error)
        return ""

    assert named in launch(wrong, 1, deadline=60)[0]


def test_several_machines_are_refused_by_all() -> None:
    def apart() -> str:
        with init() as world:
            if world.rank == 1:  # as on a machine whose files are others
                Path.is_file = lambda path: False  # type: ignore[method-assign, assignment]
            try:
                shared_memory(10)
            except ValueError as error:
                return str(error)
        return ""

    assert ["on one machine" in said for said in launch(apart, 2, deadline=60)] == [True, True]


def test_wrong_number_of_elements() -> None:
    def none() -> None:
        with init():
            shared_memory(0)

    with pytest.raises(RankError, match="elements must be a whole number of at least 1"):
        launch(none, 1, deadline=60)
