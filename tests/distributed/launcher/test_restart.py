"""A part of the store for each start of the ranks, whatever earlier starts have left in it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist

from labkit.distributed.launcher.restart import fresh_store

pytestmark = pytest.mark.timeout(60)
SOON = timedelta(seconds=0.2)


def together(*works: Callable[[], Any]) -> list[Any]:
    """Run all at the same time and return what each returned."""
    results: list[Any] = [None] * len(works)

    def run(number: int) -> None:
        results[number] = works[number]()

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return results


def start(store: Any, size: int = 3) -> list[Any]:
    """All ranks of one start meet; each returns its part of the store."""
    return together(*(lambda r=r: fresh_store(store, r, size) for r in range(size)))


def same(parts: list[Any], key: str) -> bool:
    """Whether what one writes is what all others read."""
    parts[0].set(key, "here")
    return all(part.check([key]) and part.get(key) == b"here" for part in parts)


def test_all_ranks_of_a_start_share_a_part_that_no_earlier_start_has_written_to() -> None:
    store = dist.HashStore()
    for _ in range(5):
        parts = start(store)
        assert not any(part.check(["address"]) for part in parts)
        assert same(parts, "address")


def test_ranks_that_died_before_they_met_do_not_matter() -> None:
    store = dist.HashStore()
    start(store)
    with pytest.raises(RuntimeError):  # rank 0 came and died, nobody else came
        fresh_store(store, 0, 3, patience=SOON)
    with pytest.raises(RuntimeError):  # ranks 1 and 2 came and died, rank 0 did not come
        fresh_store(store, 1, 3, patience=SOON)
    with pytest.raises(RuntimeError):
        fresh_store(store, 2, 3, patience=SOON)
    parts = start(store)
    assert same(parts, "address")
    assert not parts[0].check(["other"])


def test_the_number_of_ranks_may_change() -> None:
    store = dist.HashStore()
    for size in (1, 3, 2, 1):
        assert same(start(store, size), "address")


def test_who_waits_in_vain_says_for_whom() -> None:
    with pytest.raises(RuntimeError, match="rank 0 did not come within 0.2 s"):
        fresh_store(dist.HashStore(), 1, 2, patience=SOON)
