"""Ranks are timed from a common start to the end of the slowest: against planted delays."""

from __future__ import annotations

from time import sleep

import pytest

from labkit.distributed import init, launch
from labkit.distributed.collectives.rank_timing import interleave_ranks


def timed(slow_rank, delay, rounds):
    order = []
    with init() as world:

        def slow():
            order.append("slow")
            sleep(delay if world.rank == slow_rank else 0)

        arms = {"slow": slow, "quick": lambda: order.append("quick")}
        return interleave_ranks(arms, rounds, warmup=1), order


def test_the_slowest_rank_counts_and_all_learn_it():
    (times, order), (others, same_order) = launch(
        timed, slow_rank=1, delay=0.02, rounds=12, deadline=60
    )
    assert times == others and order == same_order
    assert list(times) == ["slow", "quick"]
    assert len(times["slow"]) == len(times["quick"]) == 12
    assert min(times["slow"]) >= 0.02
    assert sum(times["quick"]) < sum(times["slow"])
    pairs = [tuple(order[i : i + 2]) for i in range(0, 26, 2)]
    assert all(sorted(pair) == ["quick", "slow"] for pair in pairs)  # each once a round
    assert len(set(pairs)) == 2  # and not always in the same order


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (({}, 1), "functions is empty"),
        (({"a": print}, 0), "rounds must be a whole number of at least 1, got 0"),
        (({"a": print}, 1, -1), "warmup must be a whole number of at least 0, got -1"),
        (({"a": print}, 1, True), "warmup must be"),
    ],
)
def test_refusals(arguments, word):
    functions, rounds, *warmup = arguments
    with init(), pytest.raises(ValueError, match=word):
        interleave_ranks(functions, rounds, **({"warmup": warmup[0]} if warmup else {}))
