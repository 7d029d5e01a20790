"""The same function in `launch`, under torchrun, on two machines; and a worker that is killed.

The final losses are compared to the last bit. Every process of a test carries the test's temporary
folder in its environment: that is how the ones that stay are found.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch.distributed as dist

from labkit.distributed import init, launch
from labkit.distributed.launcher import world

pytestmark = pytest.mark.timeout(180)
SMALL = {"steps": 80, "images": 1000, "every": 4}
KILL_AT = 11
END = 20.0  # seconds after a test, by which its processes have ended


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """For the processes of one test. None of them may be there when it ends."""
    # Not under tmp_path: a fork server's socket needs a path of at most 107 characters, and those
    # of tests that run beside each other are longer.
    with tempfile.TemporaryDirectory(prefix="lab-") as folder:
        variables = {**os.environ, "TMPDIR": folder}
        variables.pop("GLOO_SOCKET_IFNAME", None)
        yield variables
        limit = time.monotonic() + END
        while (left := of(Path(folder))) and time.monotonic() < limit:
            time.sleep(0.05)
        for process in left:
            process.kill()
        assert left == []


def of(folder: Path) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if is_of(process, folder)]


def is_of(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.environ().get("TMPDIR", "").startswith(str(folder))
    except psutil.Error:
        return False


@pytest.fixture(scope="module")
def undisturbed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The final loss that `launch` gives, with all its digits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root / "examples")
        from train_distributed import fit

        path = tmp_path_factory.mktemp("launch") / "checkpoint"
        losses = launch(fit, nprocs=2, deadline=60, path=path, **SMALL)
    assert losses[0] == losses[1]
    return repr(losses[0])


def arguments(**numbers: int) -> list[str]:
    return [word for name, number in numbers.items() for word in (f"--{name}", str(number))]


def torchrun(
    root: Path,
    folder: Path,
    environment: dict[str, str],
    each: Callable[[str, dict[str, int]], None],
) -> str:
    """Train under torchrun on this machine and return the final loss.

    `each` is shown each line, and the processes of the ranks as far as they are known.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--local-addr", "127.0.0.1"]
    command += ["--nproc-per-node", "2", "--max-restarts", "1"]
    command += [str(root / "examples/train_distributed.py"), *arguments(**SMALL)]
    command += ["--path", str(folder / "checkpoint")]
    errors, processes, loss = folder / "errors", {}, ""
    with (
        errors.open("w") as file,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=file, text=True, env=environment
        ) as agent,
    ):
        for line in agent.stdout:
            if found := re.match(r"rank (\d) of 2 is process (\d+)", line):
                processes[found[1]] = int(found[2])
            if line.startswith("final loss "):
                loss = line.split()[-1]
            each(line, processes)
    assert agent.returncode == 0, errors.read_text()
    return loss


def test_torchrun_starts_a_killed_worker_again_and_gives_what_launch_gives(
    root, tmp_path, environment, undisturbed
):
    lines, listening = [], {}

    def look_and_kill(line: str, processes: dict[str, int]) -> None:
        lines.append(line)
        if line.startswith("rank 0, step 3 "):
            for rank, process in processes.items():
                connections = psutil.Process(process).net_connections("inet")
                listens = [c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN]
                listening[rank] = set(listens)
        if line.startswith(f"rank 1, step {KILL_AT} "):
            os.kill(processes["1"], signal.SIGKILL)

    assert torchrun(root, tmp_path, environment, look_and_kill) == undisturbed
    assert listening == {"0": {"127.0.0.1"}, "1": {"127.0.0.1"}}
    resumed = re.search(r"resumed after (\d+) of 80 steps", "".join(lines))
    assert resumed, "the worker had ended before it was killed"
    assert KILL_AT + 1 - SMALL["every"] <= int(resumed[1]) < SMALL["steps"]


SLOW_END = """
import time
import torch
import torch.distributed as dist
from labkit.distributed import init

with init() as world:
    if world.rank:
        time.sleep(0.3)  # so that the sum of rank 0 ends in a thread of gloo's
    done = dist.all_reduce(torch.ones(3), async_op=True).get_future()
    after = done.then(lambda _: time.sleep(0.1))
    done.wait()
"""


def test_a_thread_that_still_needs_python_does_not_abort_the_program(tmp_path, environment):
    meeting = {"WORLD_SIZE": "2", world.RENDEZVOUS: str(tmp_path / "rendezvous")}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SLOW_END],
            stderr=subprocess.PIPE,
            text=True,
            env={**environment, **meeting, "RANK": str(rank)},
        )
        for rank in range(2)
    ]
    said = [rank.communicate()[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said


# ---- two machines


def namespaces() -> bool:
    """Whether this system lets us have networks of our own. The script has its own opinion."""
    if not all(shutil.which(name) for name in ("unshare", "nsenter", "setpriv", "ip")):
        return False
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    link = ["ip", "link", "add", "name", "one", "type", "veth", "peer", "name", "two"]
    return subprocess.run(["unshare", *user, "--net", *link], capture_output=True).returncode == 0


def two_machines(root: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "examples/two_machines.py"), *arguments(**SMALL)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_two_machines_lose_a_worker_and_reach_the_same_loss(root, environment, undisturbed):
    done = two_machines(root, environment)
    if namespaces():
        assert done.returncode == 0, done.stderr
        assert f"\nfinal loss {undisturbed}\n" in done.stdout
        assert re.search("killed rank 1.*\nresumed after", done.stdout, re.DOTALL)
        assert done.stdout.endswith("The same final loss, to the last bit.\n")
    else:
        assert done.returncode == 2
        assert done.stderr.startswith("No network namespaces can be made here: ")
    assert list(Path(environment["TMPDIR"]).iterdir()) == []


def test_without_namespaces_it_says_what_is_missing(root, environment):
    done = two_machines(root, {**environment, "PATH": "/nowhere"})
    assert done.returncode == 2
    assert done.stderr.startswith("No network namespaces can be made here: ")
    assert "unshare" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_when_the_script_ends_all_that_it_started_ends(root, tmp_path, environment, how):
    command = [sys.executable, str(root / "examples/two_machines.py")]
    output = tmp_path / "output"  # no pipe: who writes into a closed one would end for that reason
    with output.open("w") as file:
        script = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    if not namespaces():
        assert script.wait() == 2
        return
    while not output.read_text().startswith("one machine"):  # said inside the namespaces
        assert script.poll() is None, output.read_text()
        time.sleep(0.05)
    script.send_signal(how)
    assert script.wait() == (1 if how == signal.SIGTERM else -how)
    # The fixture asserts that nothing is left.


# ---- init under torchrun


@pytest.fixture
def alone_under_torchrun(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setattr(world, "rendezvous", lambda url: iter([(dist.HashStore(), 0, 1)]))


def test_ranks_of_one_machine_use_loopback(alone_under_torchrun):
    with init():
        assert os.environ["GLOO_SOCKET_IFNAME"] in {"lo", "lo0"}
    assert "GLOO_SOCKET_IFNAME" not in os.environ


def test_ranks_of_several_machines_use_the_interface_that_was_named(
    alone_under_torchrun, monkeypatch
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="GLOO_SOCKET_IFNAME=eth0"), init():
        pass
