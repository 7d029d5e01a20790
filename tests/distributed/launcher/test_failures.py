"""Each way in which a rank can fail: it is told, and all ranks end."""

import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
import torch.distributed as dist
from support.ranks import (
    END,
    LIMIT,
    as_main,
    command,
    failing,
    gone,
    running,
    wait_for,
    wait_for_the_others,
)
from torch import nn

from labkit import train
from labkit.distributed import RankError, Ranks, init, launch, tell
from labkit.distributed.launcher.process import RankProcess
from labkit.distributed.parallel.data import data_parallel

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("nothing_is_left")]


def test_a_rank_that_raises_is_quoted() -> None:
    def work(wrong: int) -> None:
        with init() as world:
            if world.rank == wrong:
                raise ValueError("no such thing")
            dist.all_reduce(torch.ones(1))
            time.sleep(100)

    for wrong in (0, 1):
        text = failing(work, wrong=wrong)
        assert text.startswith(f"rank {wrong} of 2 raised ValueError: no such thing\n\nTraceback")
        assert 'raise ValueError("no such thing")' in text and "worker.py" not in text


def test_all_ranks_end_soon_after_one_has_failed() -> None:
    def work() -> None:
        with init() as world:
            tell(os.getpid(), time.monotonic())
            dist.barrier()
            time.sleep(0.5)  # so that both reports have been taken in before the failure
            if world.rank:
                dist.all_reduce(torch.ones(1), async_op=True)  # which would have to be waited for
                raise ValueError
            time.sleep(100)

    told = []
    with pytest.raises(RankError, match="rank 1 of 2 raised ValueError"):
        for each in Ranks(work, 2, **LIMIT):
            told.append(each)
    assert time.monotonic() - max(each.loss for each in told) < END
    assert gone(*(each.step for each in told)) and len(told) == 2


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGSEGV"])
def test_a_rank_that_is_killed_is_named(name: str) -> None:
    def work() -> None:
        with init() as world:
            if world.rank == 1:
                os.kill(os.getpid(), signal.Signals[name])
            dist.all_reduce(torch.ones(1))

    text = failing(work)
    assert text.startswith(f"rank 1 of 2 was killed by {name}")
    assert ("memory" in text) == (name == "SIGKILL")
    assert ("in work" in text) == (name == "SIGSEGV")  # where it crashed


def test_a_rank_that_hangs_shows_where() -> None:
    text = failing(wait_for_the_others, deadline=2)
    first, zero, one = text.split("\n\n")
    remedy = "if that is no hang but long work, raise deadline="
    assert first == f"rank 0, 1 had not ended after 2 s: {remedy}"
    assert zero.startswith("rank 0 was here:\n") and "in all_reduce" in zero
    assert one.startswith("rank 1 was here:\n") and "in wait_for_the_others" in one
    assert "worker.py" not in text and "forkserver.py" not in text


def test_only_those_that_hang_are_named() -> None:
    def work() -> int:
        if os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGSTOP)
        return 1

    text = failing(work, deadline=2)
    first, second = text.split("\n\n")
    assert first.startswith(
        "rank 1 had not ended after 2 s, rank 0 had returned: if that is no hang"
    )
    assert second.startswith("rank 1 was here:\nnothing is known")


@pytest.mark.parametrize(
    ("batches", "where"),
    [
        ([3, 4], "a collective"),  # backward waits, in C++
        ([3, 4, 4], "a collective"),
        ([2, 1, 3], "a collective"),
        (["all_reduce"], "all_reduce"),
        (["broadcast"], "broadcast"),
    ],
)
def test_a_rank_that_has_returned_is_named_by_those_that_wait(batches: Any, where: str) -> None:
    def work() -> None:
        with init() as world:
            if batches[0] == "all_reduce" and world.rank:
                dist.all_reduce(torch.ones(1))
            elif batches[0] == "broadcast" and world.rank:
                dist.broadcast(torch.ones(1), 0)
            elif isinstance(batches[0], int):
                model = data_parallel(nn.Linear(3, 2))
                data = [(torch.randn(4, 3), torch.zeros(4, dtype=torch.long))]
                optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
                list(train(model, data * batches[world.rank], optimizer))

    text = failing(work, max(2, len(batches)))
    first = text.splitlines()[0]
    waits = rf"rank \d of \d waited in {where} for others, but rank [\d, ]+ had returned: all must"
    assert re.match(waits, first), text


def test_a_rank_that_talks_without_end_is_stopped_too(capsys: pytest.CaptureFixture[str]) -> None:
    def talk() -> None:
        while True:
            print("and so on")

    assert "in talk" in failing(talk, 1, deadline=1)
    faster_than_us = object.__new__(RankProcess)
    faster_than_us._pipe = SimpleNamespace(poll=lambda: True, recv=lambda: ("stdout", "more"))
    messages, ended = faster_than_us.messages()
    assert 0 < len(messages) <= 1000 and not ended


def test_memory_that_runs_out_is_told() -> None:
    def fill() -> None:
        with init() as world:
            if world.rank == 1:
                import resource

                resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
                torch.ones(2**32)
            dist.all_reduce(torch.ones(1))

    text = failing(fill)
    assert text.startswith("rank 1 of 2 raised RuntimeError: ") and "memory" in text
    assert "torch.ones(2**32)" in text


def test_a_rank_that_leaves_early_is_told() -> None:
    assert failing(lambda: sys.exit(3), 1).startswith("rank 0 of 1 raised SystemExit: 3")
    text = failing(lambda: os._exit(7), 1)
    assert text.startswith("rank 0 of 1 ended with exit code 7 before its function did")


def test_what_cannot_be_sent_is_told() -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError, match="^this cannot be sent to another process: .*lock"):
        launch(print, 2, that=1, this=lock)
    with pytest.raises(TypeError, match="^function cannot be sent to another process: .*lock"):
        launch(lambda: lock)
    text = failing(lambda: (n for n in "abc"), 1)
    assert "raised TypeError: what the function returned (generator) cannot be sent: " in text

    class Unreadable:
        def __reduce__(self) -> Any:
            return int, ("no number",)

    text = failing(Unreadable, 1)
    assert "returned what cannot be read here: ValueError: invalid literal" in text


def test_reports_that_came_before_a_failure_are_kept() -> None:
    def work() -> None:
        for step in range(20):
            tell(step, 0.0)
        raise ValueError

    told = []
    with pytest.raises(RankError):
        for each in Ranks(work, 1, **LIMIT):
            told.append(each.step)
    assert told == list(range(20))


def test_a_script_without_its_guard_is_told_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "script.py"
    path.write_text("from labkit.distributed import launch\nlaunch(int)")
    as_main(monkeypatch, __file__=str(path))
    text = failing(int)
    assert text.startswith("rank ") and "ended with exit code 1 before its function did" in text
    assert text.endswith('must be called under if __name__ == "__main__":')


def test_a_server_that_is_killed_is_told_and_replaced(servers: set[psutil.Process]) -> None:
    """The last test here: it ends what the others share."""
    ranks = Ranks(wait_for_the_others, 2, **LIMIT)
    pids = [each.pid for each in running() - servers]
    for server in servers:
        if "forkserver" in command(server):
            server.kill()
    with pytest.raises(RankError, match="was lost, because the server of all ranks was killed"):
        list(ranks)
    wait_for(lambda: gone(*pids), END)
    assert launch(lambda: 1, 2) == [1, 1]
    servers.clear()
    servers.update(running())
    assert len(pids) == 2
