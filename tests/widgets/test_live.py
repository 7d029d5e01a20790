"""The live view without a front end: it runs the same code, so it can be tested like any other."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from ipywidgets import DOMWidget
from support.synthetic_feed import TABLE, SyntheticFeed

from labkit.facts import threads
from labkit.widgets import LiveRun, live
from labkit.widgets.view import LiveView

PNG = b"\x89PNG"
LONG = {"rounds": 100_000, "seconds": 0.001}  # longer than any test waits


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any, bytes]]:
    """Every message to the browser, as (method, content, first buffer)."""
    messages: list[tuple[str, Any, bytes]] = []

    def send(view: LiveView, message: dict[str, Any], buffers: Any = None) -> None:
        if view.comm is not None:  # before that, the real one sends nothing either
            messages.append((message["method"], message.get("content"), (buffers or [b""])[0]))

    monkeypatch.setattr(LiveView, "_send", send)
    return messages


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def press(run: LiveRun, kind: str) -> None:
    """What the browser's button does."""
    run.view._handle_custom_msg({"kind": kind}, [])


def end(run: LiveRun) -> None:
    run.stop()
    run.wait()


def test_a_run_ends_with_all_points_and_its_twin() -> None:
    feed = SyntheticFeed(rounds=50)
    run = live(feed)
    run.wait()
    assert (run.state, run.error, feed.done) == ("finished", None, 50)
    x, y = run.view.rows.curve(0, 1)
    assert x.tolist() == list(range(1, 51)) and len(y) == 50
    seconds, _ = run.view.rows.curve(1, 0, alternative=1)
    numpy.testing.assert_allclose(seconds, [0.36 * i for i in range(1, 6)], rtol=1e-6)
    assert run.picture is not None
    assert run.picture.png.startswith(PNG)
    assert run.picture.alt == f"Finished. Round 50 of 50.\n{TABLE}"


def test_await_waits_and_may_be_repeated() -> None:
    async def cell() -> str:
        run = live(SyntheticFeed(rounds=20, seconds=0.002))
        await run
        await run
        return run.state

    assert asyncio.run(cell()) == "finished"


def test_the_messages_carry_exactly_the_history(sent: list[tuple[str, Any, bytes]]) -> None:
    run = live(SyntheticFeed(rounds=60, seconds=0.01))
    run.wait()
    assert {method for method, _, _ in sent} == {"custom"}  # nothing is synced behind our back
    assert b"".join(buffer for _, _, buffer in sent) == bytes(run.view.rows.data)
    rows = 0
    for _, content, buffer in sent:
        assert content["first"] == rows
        rows += len(buffer) // 20
    assert sent[-1][1]["status"]["state"] == "finished"
    assert len(sent) < 60  # several rounds share a message


def test_a_page_that_is_loaded_again_gets_everything(sent: list[tuple[str, Any, bytes]]) -> None:
    run = live(SyntheticFeed(**LONG))
    wait_until(lambda: len(run.view.rows) > 100)
    state = run.view.get_state()
    assert state["history"] == bytes(run.view.rows.data)[: len(state["history"])]
    assert len(state["history"]) >= 100 * 20 and state["status"]["state"] == "running"
    end(run)
    press(run, "resend")
    assert sent[-1][1]["first"] == 0 and sent[-1][2] == bytes(run.view.rows.data)


def test_stopped_is_not_an_error() -> None:
    run = live(SyntheticFeed(**LONG))
    press(run, "stop")
    run.wait()
    assert (run.state, run.error) == ("stopped", None)
    assert run.picture is not None and run.picture.alt.startswith("Stopped at 0%. Round")


def test_a_pause_holds_the_work_and_can_be_ended_or_stopped() -> None:
    feed = SyntheticFeed(**LONG)
    run = live(feed)
    wait_until(lambda: feed.done > 3)
    press(run, "pause")
    wait_until(lambda: run.state == "paused")
    done = feed.done
    time.sleep(0.05)
    assert feed.done == done
    press(run, "resume")
    wait_until(lambda: feed.done > done and run.state == "running")
    press(run, "pause")
    wait_until(lambda: run.state == "paused")
    end(run)
    assert run.state == "stopped"


@pytest.mark.parametrize("background", [True, False])
def test_an_error_is_shown_and_raised(background: bool, sent: list[tuple[str, Any, bytes]]) -> None:
    feed = SyntheticFeed(rounds=50, fail_at=20)
    with pytest.raises(RuntimeError, match="the loss is not a number"):
        live(feed, background=background).wait()
    status = sent[-1][1]["status"]
    assert status["state"] == "failed"
    assert status["error"] == "RuntimeError: the loss is not a number"
    assert feed.done == 20

    async def cell() -> None:
        await live(SyntheticFeed(rounds=5, fail_at=2))

    with pytest.raises(RuntimeError, match="the loss is not a number"):
        asyncio.run(cell())


def test_the_curves_before_an_error_stay() -> None:
    run = live(SyntheticFeed(rounds=50, fail_at=20))
    run.join()
    assert run.picture is not None
    assert run.picture.alt.startswith("Failed at 40%: RuntimeError: the loss is not a number.")
    assert len(run.view.rows.curve(0, 0)[0]) == 20


def test_in_the_cell_everything_is_done_when_live_returns() -> None:
    class Here(SyntheticFeed):
        def advance(self) -> bool:
            assert threading.current_thread() is threading.main_thread()
            return super().advance()

    assert live(Here(rounds=10), background=False).state == "finished"


def test_interrupts_are_polite_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(SyntheticFeed):
        def advance(self) -> bool:
            if self.done == 5:
                raise KeyboardInterrupt
            return super().advance()

    assert live(Interrupted(), background=False).state == "stopped"

    async def cancelled() -> LiveRun:
        run = live(SyntheticFeed(**LONG))
        asyncio.get_running_loop().call_later(0.02, asyncio.current_task().cancel)  # type: ignore[union-attr]
        await run
        await asyncio.sleep(0)  # the cell goes on after it
        return run

    assert asyncio.run(cancelled()).state == "stopped"

    run = live(SyntheticFeed(**LONG))
    join, calls = run.join, iter([KeyboardInterrupt, None])

    def interrupted_once() -> None:
        if next(calls) is KeyboardInterrupt:
            raise KeyboardInterrupt
        join()

    monkeypatch.setattr(run, "join", interrupted_once)
    run.wait()
    assert run.state == "stopped"


def test_a_new_run_stops_the_one_before() -> None:
    first = live(SyntheticFeed(**LONG))
    second = live(SyntheticFeed(rounds=5))
    assert first.state == "stopped"
    second.wait()
    assert second.state == "finished"


@pytest.mark.parametrize("count", [None, 1, 3])
def test_work_has_its_threads_and_the_number_outside_comes_back(count: int | None) -> None:
    """A race says how many it wants; what says nothing gets one."""
    seen = []

    class Counting(SyntheticFeed):
        def advance(self) -> bool:
            seen.append(torch.get_num_threads())
            return super().advance()

    feed = Counting(rounds=3)
    if count is not None:
        feed.thread_count = count  # type: ignore[attr-defined]
    with threads(2):
        live(feed).wait()
        assert torch.get_num_threads() == 2
    assert set(seen) == {count or 1}


def test_messages_are_sent_as_if_by_the_cell_that_made_the_view(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cell: ContextVar[str] = ContextVar("cell")
    cell.set("the cell that made it")
    senders = set()
    monkeypatch.setattr(DOMWidget, "_send", lambda *_, **__: senders.add(cell.get("none")))
    run = live(SyntheticFeed(rounds=5))
    run.wait()
    cell.set("another cell")
    press(run, "resend")
    assert senders == {"the cell that made it"}


def test_the_thread_does_not_keep_python_alive() -> None:
    run = live(SyntheticFeed(**LONG))
    assert run._thread is not None and run._thread.daemon
    end(run)


def test_python_can_end_in_mid_run(root: Path) -> None:
    program = (
        "import torch\nfrom support.synthetic_feed import SyntheticFeed\n"
        "from labkit.widgets import live\n"
        "class Busy(SyntheticFeed):\n"
        "    def advance(self):\n"
        "        torch.rand(300, 300) @ torch.rand(300, 300)\n"
        "        return super().advance()\n"
        "run = live(Busy(rounds=10**6))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_a_finished_run_can_be_forgotten() -> None:
    feed = SyntheticFeed(rounds=5)
    gone = weakref.ref(feed)
    run = live(feed)
    run.wait()
    del run, feed
    gc.collect()
    assert gone() is None  # though the widget itself lives on in the page


def test_what_cannot_be_shown_is_refused() -> None:
    with pytest.raises(TypeError, match="got dict"):
        live({})


def test_texts_hold_no_addresses() -> None:
    run = live(SyntheticFeed(rounds=2))
    run.wait()
    assert (repr(run), repr(run.view)) == ("live run, finished", "LiveView()")
