"""Worlds one after the other, after errors too; and what a launch says that cannot go on."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from support.ranks import LIMIT, failing

from labkit.distributed import init, launch

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("nothing_is_left")]


def in_turn(caught: bool, pending: bool) -> list[float]:
    """Sums of some worlds, each of which ends in an error if `caught`."""
    sums = []
    for number in range(3):
        try:
            with init() as world:
                total = torch.tensor(float(world.rank + number))
                dist.all_reduce(total)
                sums.append(total.item())
                group = dist.new_group([0, 1])
                if pending and world.rank:  # nobody answers these
                    dist.all_reduce(torch.ones(1), async_op=True)
                    dist.all_reduce(torch.ones(1), async_op=True, group=group)
                if caught:
                    raise KeyError(number)
        except KeyError:
            assert not dist.is_initialized()
    return sums


@pytest.mark.parametrize(("caught", "pending"), [(False, False), (True, False), (True, True)])
def test_worlds_in_turn(caught: bool, pending: bool) -> None:
    for _ in range(3):
        assert launch(in_turn, **LIMIT, caught=caught, pending=pending) == [[1.0, 3.0, 5.0]] * 2


def test_an_error_with_messages_under_way_ends_at_once() -> None:
    def work() -> None:
        with init() as world:
            group = dist.new_group([0, 1])
            if world.rank:
                dist.all_reduce(torch.ones(1), async_op=True, group=group)
                raise ValueError("mine")
            time.sleep(100)

    assert failing(work).startswith("rank 1 of 2 raised ValueError: mine")


def test_an_interrupt_shows_the_cell_and_not_the_launcher() -> None:
    def interrupt() -> None:
        time.sleep(2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt, match="all ranks have ended") as caught:
        launch(sleep)
    shown = caught.traceback.filter(caught)  # what IPython shows: no frame that asks to be hidden
    files = [name for each in shown if not (name := Path(str(each.path)).name).startswith("<")]
    assert files == ["test_in_turn.py", "launch.py", "launch.py"]
    assert caught.value.__suppress_context__


def sleep() -> None:
    time.sleep(100)


SCRIPT = """
from labkit.distributed import launch
if __name__ == "__main__":
    try:
        print(launch(int, 2))
    except OSError as error:
        print(error)
"""


def test_a_folder_too_deep_for_sockets_is_named(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 20) / ("er" * 20)
    deep.mkdir(parents=True)
    (tmp_path / "script.py").write_text(SCRIPT)
    command: list[Any] = [sys.executable, tmp_path / "script.py"]
    environment = {**os.environ, "TMPDIR": str(deep)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.stdout.startswith("TMPDIR must be a shorter path, such as /tmp, got ")
    assert str(deep) in done.stdout and not list(deep.glob("labkit-ranks-*"))
