"""Timing: who runs when, what the clock sees, and how a time is written."""

from __future__ import annotations

import threading
from collections import Counter
from itertools import pairwise, permutations

import pytest
import torch

from labkit import checks, facts
from labkit.measure import Timing, interleave, order_of_round, timing


class Clock:
    """A clock that only moves when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def costs(self, seconds: float):
        def function() -> None:
            self.now += seconds

        return function


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timing, "time", made)
    return made


def test_order_changes_from_round_to_round():
    calls: list[str] = []
    functions = {name: lambda name=name: calls.append(name) for name in "abc"}
    interleave(functions, rounds=4, warmup=2)
    rounds = ["".join(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    # Two to warm up, then the round that is number 0 to `order_of_round` and to Samples.of_timings.
    assert rounds == ["acb", "bac", "abc", "bca", "cab", "cba"]


@pytest.mark.parametrize("count", range(1, 9))
def test_all_have_each_place_and_each_predecessor_equally_often(count):
    names = "abcdefgh"[:count]
    rounds = [order_of_round(names, number) for number in range(2 * count)]
    assert rounds[0] == list(names) and all(sorted(each) == list(names) for each in rounds)
    for place in zip(*rounds, strict=True):
        assert Counter(place) == dict.fromkeys(names, 2)
    pairs = Counter(pair for each in rounds for pair in pairwise(each))
    assert pairs == dict.fromkeys(permutations(names, 2), 2)
    assert [order_of_round(names, 2 * count + n) for n in range(2 * count)] == rounds


def test_each_sample_is_the_time_of_its_own_function(clock: Clock):
    measured = interleave({"one": clock.costs(1.0), "two": clock.costs(2.0)}, rounds=5)
    assert list(measured) == ["one", "two"]
    assert measured["one"].seconds == pytest.approx([1.0] * 5)
    assert measured["two"].seconds == pytest.approx([2.0] * 5)


def test_warmup_is_not_in_the_samples(clock: Clock):
    costs = iter([100.0, 100.0, 1.0, 1.0, 1.0])

    def slow_at_first() -> None:
        clock.now += next(costs)

    measured = interleave({"f": slow_at_first}, rounds=3, warmup=2)["f"]
    assert measured.seconds == pytest.approx([1.0] * 3)


def test_device_is_waited_for_before_each_reading(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    """Work that a device still owes is done inside the clock, and none of it before."""
    owed = [7.0]  # left over from what ran before

    def finish(device: torch.device) -> None:
        assert device == torch.device("cuda")
        clock.now += owed[0]
        owed[0] = 0.0

    def launch() -> None:
        owed[0] += 3.0

    monkeypatch.setattr(facts, "synchronize", finish)
    monkeypatch.setattr(checks, "device_of", torch.device)  # this machine may have none
    measured = interleave({"f": launch}, rounds=3, warmup=0, device="cuda")["f"]
    assert measured.seconds == pytest.approx([3.0] * 3)


def test_threads_are_pinned_and_restored():
    seen: list[int] = []
    before = torch.get_num_threads()
    interleave({"f": lambda: seen.append(torch.get_num_threads())}, rounds=1, threads=before + 1)
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


def test_threads_are_restored_after_an_error_that_names_the_function():
    before = torch.get_num_threads()

    def broken() -> None:
        raise RuntimeError("no such kernel")

    with pytest.raises(RuntimeError, match="no such kernel") as caught:
        interleave({"good": lambda: None, "bad": broken}, threads=before + 1)
    assert caught.value.__notes__ == ["raised while timing 'bad'"]
    assert torch.get_num_threads() == before


def test_works_in_a_background_thread():
    results: list[Timing] = []
    thread = threading.Thread(
        target=lambda: results.append(interleave({"f": lambda: torch.ones(3)}, rounds=2)["f"])
    )
    thread.start()
    thread.join()
    assert results[0].n == 2


def test_median_and_spread_shrug_off_an_outlier():
    measured = Timing("step", (0.001, 0.002, 0.003, 0.004, 9.0))
    assert measured.median == 0.003
    assert measured.spread == pytest.approx(0.002)  # quartiles 2 and 4 ms
    assert measured.n == 5
    assert str(measured) == "step: 3 ms (spread 2 ms, n 5)"


def test_a_single_sample_has_no_spread():
    assert str(Timing("once", (2.5,))) == "once: 2.5 s (spread 0 s, n 1)"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"functions": {}}, ValueError, "functions is empty"),
        ({"functions": {"a": 3}}, TypeError, "functions.*got {'a': 3}"),
        ({"functions": {"a": int, "b": 3}}, TypeError, r"functions\['b'\].*got int"),
        ({"rounds": 0}, ValueError, "rounds.*got 0"),
        ({"rounds": 2.5}, TypeError, "rounds.*got 2.5"),
        ({"warmup": -1}, ValueError, "warmup.*got -1"),
        ({"warmup": True}, ValueError, "warmup.*got True"),
        ({"threads": 0}, ValueError, "got 0"),
    ],
)
def test_bad_input_is_named(arguments: dict, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        interleave(**{"functions": {"f": lambda: None}, **arguments})
