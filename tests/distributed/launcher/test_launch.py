"""Real processes that do what they should.

Every test runs in a temporary folder of its own and ends with the processes it began with.
"""

import gc
import os
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import torch.distributed as dist
from support.ranks import LIMIT, as_main, gone, wait_for

from labkit.distributed import Ranks, RankStep, init, launch, tell
from labkit.facts import cores

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("nothing_is_left")]


def test_results_come_in_the_order_of_ranks() -> None:
    factor = 10  # a closure

    def work(add: int, words: list[str]) -> tuple[int, float, list[str]]:
        with init() as world:
            time.sleep(0.05 * (world.size - world.rank))  # the last one is done first
            total = torch.tensor(float(world.rank))
            dist.all_reduce(total)
            return factor * world.rank + add, total.item(), words

    results = launch(work, 4, **LIMIT, add=3, words=["a"])
    assert results == [(10 * rank + 3, 6.0, ["a"]) for rank in range(4)]
    assert launch(lambda: os.environ["RANK"], 1) == ["0"]


def test_large_values_travel_both_ways() -> None:
    def double(tensor: torch.Tensor) -> torch.Tensor:
        return 2 * tensor

    given = torch.arange(5e6)
    for result in launch(double, 2, **LIMIT, tensor=given):
        assert torch.equal(result, 2 * given)


def test_a_class_of_the_notebook_comes_back_as_itself() -> None:
    class Found:
        pass

    assert isinstance(launch(Found, 1)[0], Found)


def test_prints_and_warnings_appear_with_the_rank(capsys: pytest.CaptureFixture[str]) -> None:
    def talk() -> None:
        print("one\ntwo")
        print("no end", end="")
        print(f"warned by {os.environ['RANK']}", file=sys.stderr)

    launch(talk, 2, **LIMIT)
    out, err = capsys.readouterr()
    for rank in (0, 1):
        lines = [line for line in out.splitlines() if line.startswith(f"[rank {rank}]")]
        assert lines == [f"[rank {rank}] {text}" for text in ("one", "two", "no end")]
        assert f"[rank {rank}] warned by {rank}" in err
    assert out.count("\n") == 6


def test_reports_arrive_in_order() -> None:
    def train(steps: int) -> None:
        for step in range(steps):
            tell(step, step / 2, steps=steps, bytes_sent=8, waiting=0.25)

    reports = list(Ranks(train, 2, **LIMIT, steps=300))
    for rank in (0, 1):
        mine = [each for each in reports if each.rank == rank]
        assert [each.step for each in mine] == list(range(300))
        assert mine[9][:-1] == RankStep(rank, 9, 4.5, 300, 8, 0.25, 0.0)[:-1]
        assert all(each.seconds > 0 for each in mine)


def test_ranks_share_the_cores_and_know_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def facts() -> tuple[int, str | None, bool, str]:
        variables = os.environ.get("LABKIT_TEST"), "PATH" in os.environ
        return torch.get_num_threads(), *variables, str(Path.cwd())

    monkeypatch.setenv("LABKIT_TEST", "set after the server was started")
    monkeypatch.delenv("PATH")
    monkeypatch.chdir(tmp_path)
    found = (max(1, cores() // 2), os.environ["LABKIT_TEST"], False, str(tmp_path))
    assert launch(facts, 2, **LIMIT) == [found, found]
    assert launch(torch.get_num_threads, 1) == [cores()]


def test_the_servers_memory_is_not_copied() -> None:
    def growth() -> int:
        process = psutil.Process()
        before = process.memory_full_info().uss
        gc.collect()
        return int(process.memory_full_info().uss - before)

    assert max(launch(growth, 2, **LIMIT)) < 20 * 2**20


def test_listeners_are_on_loopback() -> None:
    def listeners() -> set[str]:
        with init():
            dist.all_reduce(torch.ones(1))
            sockets = psutil.Process().net_connections()
            return {each.laddr.ip for each in sockets if each.status == psutil.CONN_LISTEN}

    assert launch(listeners, 2, **LIMIT) == [{"127.0.0.1"}] * 2


def test_a_function_of_the_kernels_main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel's __main__ has no file: what its cells define exists nowhere else."""
    main = as_main(monkeypatch)
    exec("width = 3\ndef cell(by): return area() * by\ndef area(): return width**2", vars(main))
    assert main.cell.__module__ == "__main__"
    assert launch(main.cell, 2, **LIMIT, by=2) == [18, 18]


def test_close_may_be_repeated_and_ends_the_ranks_at_once() -> None:
    def sleep() -> None:
        tell(os.getpid(), 0.0)
        time.sleep(100)

    ranks = Ranks(sleep, 2)
    pids = [ranks.poll(20)[0].step]
    ranks.close()
    assert gone(*pids) and not ranks.running
    ranks.close()
    assert (ranks.poll(1.0), list(ranks), ranks.results) == ([], [], [None, None])
    with Ranks(sleep, 2) as ranks:
        assert ranks.running
    assert not ranks.running


def test_hold_and_go_on() -> None:
    def train() -> None:
        for step in range(10**6):
            time.sleep(0.002)
            tell(step, 0.0)

    with Ranks(train, 2, deadline=4) as ranks:
        wait_for(lambda: {each.rank for each in ranks.poll(1)} == {0, 1})
        ranks.hold()
        ranks.hold()
        time.sleep(0.1)
        while ranks.poll(0.1):
            pass
        assert ranks.poll(0.3) == []
        ranks._limit = limit = time.monotonic()  # while held, time does not count
        assert ranks.poll(0.1) == []
        ranks.go_on()
        assert ranks._limit > limit + 0.5
        assert len(ranks.poll(1)) > 0


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"nprocs": 0}, ValueError, "nprocs must be a whole number of at least 1, got 0"),
        ({"deadline": 0}, ValueError, "deadline must be a positive number of seconds, got 0"),
        ({"function": 3}, TypeError, "function must be of type Callable"),
    ],
)
def test_bad_arguments_are_named(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        launch(arguments.pop("function", int), **arguments)
