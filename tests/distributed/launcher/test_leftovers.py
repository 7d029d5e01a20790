"""However a run ends, no process, no file, no port and no open file is left of it."""

import _thread
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist
from support.ranks import (
    END,
    LAUNCHER,
    LIMIT,
    command,
    gone,
    running,
    wait_for,
    wait_for_the_others,
)

from labkit.distributed import RankError, Ranks, init, launch, tell
from labkit.distributed.launcher.process import RankProcess

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("nothing_is_left")]


def test_what_is_left_behind_by_a_function_ends_with_it() -> None:
    def leave_children() -> int:
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"]).pid

    pids = launch(leave_children, 2, **LIMIT)
    wait_for(lambda: gone(*pids), END)

    def fork_and_die() -> None:
        child = os.fork()  # it holds the rank's end of the pipe open
        if child:
            tell(child, 0.0)
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(100)

    ranks = Ranks(fork_and_die, 1)
    (told,) = ranks.poll(20)
    with pytest.raises(RankError, match="rank 0 of 1 was killed by SIGKILL"):
        list(ranks)
    wait_for(lambda: gone(told.step), END)


def test_an_interrupt_ends_everything() -> None:
    timer = threading.Timer(0.5, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        launch(wait_for_the_others, 2, **LIMIT)
    timer.join()


def test_an_interrupt_while_closing_does_not_cut_it_short(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Ranks(wait_for_the_others, 2, **LIMIT)
    close, turns = RankProcess.close, iter([KeyboardInterrupt])

    def interrupted_once(process: RankProcess) -> None:
        close(process)
        if error := next(turns, None):
            raise error

    monkeypatch.setattr(RankProcess, "close", interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        ranks.close()
    assert not ranks.running and not ranks._folder.exists()


def test_the_server_is_deaf_to_the_kernels_interrupt(servers: set[psutil.Process]) -> None:
    """Also while it imports torch, when Python itself does not ignore it yet."""
    for server in servers:
        status = Path(f"/proc/{server.pid}/status").read_text()
        (blocked,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigBlk"))
        if "forkserver" in command(server):
            assert int(blocked, 16) & 1 << (signal.SIGINT - 1)


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
from labkit.distributed import Ranks, tell
def work():
    tell(os.getpid(), 0.0)
    time.sleep(1000)
if __name__ == "__main__":
    kept = []
    for held in (False, True):
        ranks = Ranks(work)
        told = []
        while len(told) < 2:
            told += ranks.poll(1)
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
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
    return process.returncode, out, err


def test_a_script_says_only_what_it_prints_and_ends_with_ranks_it_forgot(root: Path) -> None:
    assert script(GUARDED, root) == (0, "[0, 1] [0, 1]\n", "")


def test_a_launcher_that_is_killed_leaves_nothing(root: Path) -> None:
    """As a kernel that is restarted while it does not answer, in mid-run and in a pause."""
    with start_script(KILLED, root) as process:
        assert process.stdout is not None
        pids = {int(word) for _ in range(2) for word in process.stdout.readline().split()}
        family = {each.pid for each in psutil.Process(process.pid).children(recursive=True)}
        assert pids < family and len(pids) == 4 and len(family) == 6
        process.kill()
    wait_for(lambda: gone(*pids), END)
    wait_for(lambda: gone(*family))  # a server that has loaded torch takes a while to end
    assert list(Path(tempfile.gettempdir()).glob("labkit-ranks-*")) == []


def disturb(how: str, server: psutil.Process, chance: random.Random) -> None:
    """From another thread: interrupt the launcher, or kill one of its ranks, if there is one."""
    victims = [each for each in running() if each.ppid() == server.pid]
    if how == "interrupt":
        _thread.interrupt_main()
    elif victims:
        chance.choice(victims).kill()


def test_thirty_launches_a_third_of_them_disturbed_leave_nothing(
    servers: set[psutil.Process], tmp_path: Path
) -> None:
    chance = random.Random(0)
    (server,) = (each for each in servers if "forkserver" in command(each))
    files, ports, outcomes = LAUNCHER.num_fds(), set(), []
    for turn in range(30):
        how = ("kill", "close", "interrupt")[turn // 3 % 3] if turn % 3 == 0 else ""
        outcomes.append(one_launch(how, server, chance, ports))
    print({each: outcomes.count(each) for each in outcomes})
    assert outcomes.count("all") >= 20 and outcomes.count("RankError") <= 4
    assert list(tmp_path.iterdir()) == []
    assert LAUNCHER.num_fds() == files
    wait_for(lambda: running() <= servers, END)
    # Only what is still ours: a stranger may have been given a port that we have left.
    assert {
        port for process in (LAUNCHER, *servers) for port in listening(process)
    } & ports == set()


def one_launch(how: str, server: psutil.Process, chance: random.Random, ports: set[int]) -> str:
    def short_run() -> None:
        with init():
            (port,) = listening(psutil.Process())
            tell(port, 0.0)
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


def listening(process: psutil.Process) -> set[int]:
    sockets = process.net_connections()
    return {each.laddr.port for each in sockets if each.status == psutil.CONN_LISTEN}
