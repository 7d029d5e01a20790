"""Real processes: what they return, how each way to fail is told, and that nothing of them is left.

Every test runs in a temporary folder of its own and ends with the processes it began with.
"""

from __future__ import annotations

import _thread
import gc
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
import torch.distributed as dist

from labkit.distributed import RankError, Ranks, Report, init, launch, report
from labkit.distributed.process import MESSAGES, RankProcess
from labkit.facts import cores

pytestmark = pytest.mark.timeout(60)
LAUNCHER = psutil.Process()
LIMIT: dict[str, Any] = {"deadline": 40}
END = 5.0  # seconds after a failure, by which all ranks have ended


def running() -> set[psutil.Process]:
    """Processes below this one that do something."""
    found = set()
    for process in LAUNCHER.children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found.add(process)
        except psutil.NoSuchProcess:
            pass
    return found


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def gone(*pids: int) -> bool:
    return not any(psutil.pid_exists(p) and alive(p) for p in pids)


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def servers() -> set[psutil.Process]:
    """What stays between launches: the fork server and Python's resource tracker."""
    launch(int)
    return running()


@pytest.fixture(autouse=True)
def nothing_is_left(
    servers: set[psutil.Process], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert list(tmp_path.glob("labkit-ranks-*")) == []
    wait_for(lambda: running() <= servers, END)


def wait_for_the_others() -> None:
    """Stay in a collective that rank 1 never joins."""
    with init() as world:
        if world.rank != 1:
            dist.all_reduce(torch.ones(1))
        time.sleep(100)


# -- what works ----------------------------------------------------------------------------------


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
            report(step, step / 2, steps=steps, bytes_sent=8, waiting=0.25)

    reports = list(Ranks(train, 2, **LIMIT, steps=300))
    for rank in (0, 1):
        mine = [each for each in reports if each.rank == rank]
        assert [each.step for each in mine] == list(range(300))
        assert mine[9][:-1] == Report(rank, 9, 4.5, 300, 8, 0.25, 0.0)[:-1]
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


def test_close_may_be_repeated_and_ends_the_ranks_at_once() -> None:
    def sleep() -> None:
        report(os.getpid(), 0.0)
        time.sleep(100)

    ranks = Ranks(sleep, 2)
    pids = [ranks.poll(20)[0].step]
    ranks.close()
    assert gone(*pids) and not ranks.running
    ranks.close()
    assert (ranks.poll(1.0), list(ranks), ranks.results) == ([], [], [None, None])


def test_hold_and_go_on() -> None:
    def train() -> None:
        for step in range(10**6):
            time.sleep(0.002)
            report(step, 0.0)

    with Ranks(train, 2, deadline=4) as ranks:
        wait_for(lambda: {each.rank for each in ranks.poll(1)} == {0, 1})
        ranks.hold()
        ranks.hold()
        time.sleep(0.1)
        while ranks.poll(0.1):
            pass
        assert ranks.poll(0.3) == []
        ranks._limit = time.monotonic()  # while held, time does not count
        assert ranks.poll(0.1) == []
        ranks.go_on()
        assert len(ranks.poll(1)) > 0 and ranks._limit > time.monotonic() - 0.5


def test_what_is_left_behind_by_a_function_ends_with_it() -> None:
    def leave_children() -> int:
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"]).pid

    pids = launch(leave_children, 2, **LIMIT)
    wait_for(lambda: gone(*pids), END)

    def fork_and_die() -> None:
        child = os.fork()  # it holds the rank's end of the pipe open
        if child:
            report(child, 0.0)
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(100)

    ranks = Ranks(fork_and_die, 1)
    (told,) = ranks.poll(20)
    with pytest.raises(RankError, match="rank 0 of 1 was killed by SIGKILL"):
        list(ranks)
    wait_for(lambda: gone(told.step), END)


# -- what fails ----------------------------------------------------------------------------------


def failing(function: Callable[..., Any], nprocs: int = 2, **arguments: Any) -> str:
    """The error of a launch, all of whose ranks end in time."""
    began = time.monotonic()
    with pytest.raises(RankError) as caught:
        launch(function, nprocs, **{**LIMIT, **arguments})
    assert time.monotonic() - began < 30
    return str(caught.value)


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
            report(os.getpid(), time.monotonic())
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
    assert first == "rank 0, 1 had not ended after 2 s"
    assert zero.startswith("rank 0 was here:\n") and "in all_reduce" in zero
    assert one.startswith("rank 1 was here:\n") and "in wait_for_the_others" in one
    assert "worker.py" not in text and "forkserver.py" not in text


def test_only_those_that_hang_are_named() -> None:
    def work() -> int:
        if os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGSTOP)
        return 1

    text = failing(work, deadline=2)
    assert text.startswith("rank 1 had not ended after 2 s\n\nrank 1 was here:\nnothing is known")


def test_a_rank_that_talks_without_end_is_stopped_too(capsys: pytest.CaptureFixture[str]) -> None:
    def talk() -> None:
        while True:
            print("and so on")

    assert "in talk" in failing(talk, 1, deadline=1)
    faster_than_us = object.__new__(RankProcess)
    faster_than_us._pipe = SimpleNamespace(poll=lambda: True, recv=lambda: ("stdout", "more"))
    messages, ended = faster_than_us.messages()
    assert len(messages) == MESSAGES and not ended


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


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"nprocs": 0}, ValueError, "nprocs must be a whole number of at least 1, got 0"),
        ({"nprocs": 2.0}, ValueError, "nprocs must be a whole number of at least 1, got 2.0"),
        ({"deadline": 0}, ValueError, "deadline must be a positive number of seconds, got 0"),
        ({"deadline": "1"}, ValueError, "deadline must be a positive number of seconds, got '1'"),
        ({"function": 3}, TypeError, "function must be callable, got int"),
    ],
)
def test_bad_arguments_are_named(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        launch(arguments.pop("function", int), **arguments)


def test_reports_that_came_before_a_failure_are_kept() -> None:
    def work() -> None:
        for step in range(20):
            report(step, 0.0)
        raise ValueError

    told = []
    with pytest.raises(RankError):
        for each in Ranks(work, 1, **LIMIT):
            told.append(each.step)
    assert told == list(range(20))


def test_an_interrupt_ends_everything() -> None:
    timer = threading.Timer(0.5, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        launch(wait_for_the_others, 2, **LIMIT)
    timer.join()


def test_the_server_is_deaf_to_the_kernels_interrupt(servers: set[psutil.Process]) -> None:
    """Also while it imports torch, when Python itself does not ignore it yet."""
    for server in servers:
        status = Path(f"/proc/{server.pid}/status").read_text()
        (blocked,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigBlk"))
        if "forkserver" in " ".join(server.cmdline()):
            assert int(blocked, 16) & 1 << (signal.SIGINT - 1)


# -- scripts -------------------------------------------------------------------------------------

GUARDED = """
import time, torch
from torch.nn.parallel import DistributedDataParallel
from labkit.distributed import Ranks, init, launch
def work():
    with init() as world:
        model = DistributedDataParallel(torch.nn.Linear(2, 2))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        return world.rank
if __name__ == "__main__":
    print(launch(work), launch(work))
    forgotten = Ranks(lambda: time.sleep(1000))
"""
KILLED = """
import os, time
from labkit.distributed import Ranks, report
def work():
    report(os.getpid(), 0.0)
    time.sleep(1000)
if __name__ == "__main__":
    kept = []
    for held in (False, True):
        ranks = Ranks(work)
        told = [each for _ in range(2) for each in ranks.poll(30)]
        if held:
            ranks.hold()
        print(*{each.step for each in told}, flush=True)
        kept = [*kept, ranks]
    time.sleep(1000)
"""


def start_script(text: str, root: Path) -> subprocess.Popen[str]:
    folder = Path(tempfile.gettempdir())
    path = folder / "script.py"
    path.write_text(text)
    return subprocess.Popen(
        [sys.executable, "-W", "error", path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root), "TMPDIR": str(folder)},
    )


def script(text: str, root: Path) -> tuple[int, str, str]:
    """Run a script; return its exit code and what it wrote."""
    with start_script(text, root) as process:
        try:
            out, err = process.communicate(timeout=50)
        finally:
            process.kill()
    return process.returncode, out, err


def test_a_script_says_only_what_it_prints_and_ends_with_ranks_it_forgot(root: Path) -> None:
    assert script(GUARDED, root) == (0, "[0, 1] [0, 1]\n", "")


def as_main(monkeypatch: pytest.MonkeyPatch, **attributes: Any) -> ModuleType:
    main = ModuleType("__main__")
    main.__dict__.update(attributes)
    monkeypatch.setitem(sys.modules, "__main__", main)
    return main


def test_a_script_without_its_guard_is_told_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "script.py"
    path.write_text("from labkit.distributed import launch\nlaunch(int)")
    as_main(monkeypatch, __file__=str(path))
    text = failing(int)
    assert text.startswith("rank ") and "ended with exit code 1 before its function did" in text
    assert text.endswith('must be called under if __name__ == "__main__":')


def test_a_function_of_the_kernels_main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel's __main__ has no file: what its cells define exists nowhere else."""
    main = as_main(monkeypatch)
    exec("width = 3\ndef cell(by): return area() * by\ndef area(): return width**2", vars(main))
    assert main.cell.__module__ == "__main__"
    assert launch(main.cell, 2, **LIMIT, by=2) == [18, 18]


def test_a_launcher_that_is_killed_leaves_nothing(root: Path) -> None:
    """As a kernel that is restarted while it does not answer, in mid-run and in a pause."""
    with start_script(KILLED, root) as process:
        assert process.stdout is not None
        pids = {int(word) for _ in range(2) for word in process.stdout.readline().split()}
        family = {each.pid for each in psutil.Process(process.pid).children(recursive=True)}
        assert pids < family and len(pids) == 4 and len(family) == 6
        process.kill()
    wait_for(lambda: gone(*family), END)
    assert list(Path(tempfile.gettempdir()).glob("labkit-ranks-*")) == []


# -- the world -----------------------------------------------------------------------------------


def test_alone_the_world_has_one_member(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "left over")
    before = dict(os.environ)
    for _ in range(2):
        with pytest.raises(KeyError), init() as world:
            ones = torch.ones(3)
            dist.all_reduce(ones)
            assert (world.rank, world.size, ones.tolist()) == (0, 1, [1, 1, 1])
            raise KeyError  # leaves it in good order
    assert not dist.is_initialized() and dict(os.environ) == before


def test_alone_a_report_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    report(3, 0.25)
    report(3, 0.25, steps=10, bytes_sent=2000, waiting=0.0015)
    assert capsys.readouterr().out == (
        "rank 0, step 3: loss 0.2500\n"
        "rank 0, step 3 of 10: loss 0.2500, 2,000 bytes sent, 1.5 ms waiting\n"
    )


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK must be from 0 to WORLD_SIZE - 1, got 2 of 2"),
        ({"RANK": "1"}, "RANK must be from 0 to WORLD_SIZE - 1, got 1 of 1"),
        ({"RANK": "one"}, "environment variable RANK must be a whole number, got 'one'"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but MASTER_ADDR is not set"),
    ],
)
def test_a_contradictory_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=words), init():
        pass


# -- again and again -----------------------------------------------------------------------------


def disturb(how: str, server: psutil.Process, chance: random.Random) -> None:
    """From another thread: interrupt the launcher, or kill one of its ranks, if there is one."""
    victims = [each for each in running() if each.ppid() == server.pid]
    if how == "interrupt":
        _thread.interrupt_main()
    elif victims:
        chance.choice(victims).kill()


def test_fifty_launches_a_third_of_them_killed_leave_nothing(
    servers: set[psutil.Process], tmp_path: Path
) -> None:
    chance = random.Random(0)
    (server,) = (each for each in servers if "forkserver" in " ".join(each.cmdline()))
    files, ports, outcomes = LAUNCHER.num_fds(), set(), []
    for turn in range(50):
        how = ("kill", "close", "interrupt")[turn // 3 % 3] if turn % 3 == 0 else ""
        outcomes.append(one_launch(how, server, chance, ports))
    print({each: outcomes.count(each) for each in outcomes})
    assert outcomes.count("all") >= 33 and outcomes.count("RankError") <= 6
    assert list(tmp_path.iterdir()) == []
    assert LAUNCHER.num_fds() == files
    wait_for(lambda: running() <= servers, END)
    assert [port for port in ports if is_open(port)] == []


def one_launch(how: str, server: psutil.Process, chance: random.Random, ports: set[int]) -> str:
    def short_run() -> None:
        with init():
            sockets = psutil.Process().net_connections()
            (port,) = {each.laddr.port for each in sockets if each.status == psutil.CONN_LISTEN}
            report(port, 0.0)
            for _ in range(3):
                dist.all_reduce(torch.ones(1000))
                time.sleep(0.01)

    moment = chance.uniform(0, 0.2)
    timer = threading.Timer(moment, lambda: disturb(how, server, chance))
    try:
        if how in ("kill", "interrupt"):
            timer.start()
        with Ranks(short_run, 2, **LIMIT) as ranks:
            if how == "close":
                time.sleep(moment)
                ranks.close()
            ports |= {each.step for each in ranks}
        if timer.ident:
            timer.join()
            time.sleep(0.01)  # an interrupt that is late comes here
    except (RankError, KeyboardInterrupt) as error:
        timer.join()
        return type(error).__name__
    return "closed" if how == "close" else "all"


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_server_that_is_killed_is_told_and_replaced(servers: set[psutil.Process]) -> None:
    """The last test: it ends what the others share."""
    ranks = Ranks(wait_for_the_others, 2, **LIMIT)
    pids = [each.pid for each in running() - servers]
    for server in servers:
        if "forkserver" in " ".join(server.cmdline()):
            server.kill()
    with pytest.raises(RankError, match="was lost, because the server of all ranks was killed"):
        list(ranks)
    wait_for(lambda: gone(*pids), END)
    assert launch(lambda: 1, 2) == [1, 1]
    servers.clear()
    servers.update(running())
    assert len(pids) == 2
