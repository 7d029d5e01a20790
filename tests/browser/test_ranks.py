"""Many processes in a real JupyterLab: their lanes move, and every way to end them works."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser
from support.lab_server import LabServer, notebook_of
from support.pages import LiveElement, Notebook, opened

pytestmark = pytest.mark.timeout(150)

SETUP = """
import time, torch, torch.distributed as dist
from labkit.distributed import Ranks, init, launch, tell
from labkit.widgets import live

def train(steps, fail_at=-1):
    with init() as world:
        for step in range(steps):
            time.sleep(0.004 * (1 + world.rank))
            began = time.perf_counter()
            dist.all_reduce(torch.ones(1))
            waiting = time.perf_counter() - began
            if step == fail_at and world.rank == 1:
                raise ValueError("the loss is not a number")
            loss = 2 / (1 + 0.02 * step) + 0.05 * world.rank
            tell(step, loss, steps=steps, bytes_sent=100_000, waiting=waiting)
"""
CELLS = {
    "setup": SETUP,
    "two": "run = live(Ranks(train, 2, steps=100_000))",
    "four": "run = live(Ranks(train, 4, steps=150))",
    "failing": "run = live(Ranks(train, 2, steps=1000, fail_at=20))",
    "wait": "await run\nprint(run)",
    "blocking": (
        "try:\n    launch(train, 2, steps=100_000)\nexcept KeyboardInterrupt:\n    print('ended')"
    ),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return notebook_of(CELLS, tmp_path_factory.mktemp("made") / "ranks.ipynb")


@pytest.fixture(scope="module")
def notebook(browser: Browser, server: LabServer, source: Path) -> Iterator[Notebook]:
    with opened(browser, server, source) as shared:
        shared.run_cell("setup")
        yield shared


def family(server: LabServer) -> list[psutil.Process]:
    """All that kernels have started: fork server, resource tracker, ranks."""
    kernels = psutil.Process(server._process.pid).children()
    return [child for kernel in kernels for child in kernel.children(recursive=True)]


def ranks(server: LabServer) -> list[psutil.Process]:
    """The ranks: grandchildren of a kernel."""
    kernels = psutil.Process(server._process.pid).children()
    return [rank for kernel in kernels for own in kernel.children() for rank in own.children()]


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_lanes_move_and_buttons_answer(
    notebook: Notebook, server: LabServer, screenshots: Path
) -> None:
    notebook.run_cell("two")
    view = LiveElement(notebook.page)
    view.wait_for_rows(more_than=20)
    assert view.root.locator("canvas").count() == 3
    first = [view.drawing(number) for number in range(3)]
    view.wait_for_rows(more_than=view.rows + 20)
    notebook.page.wait_for_timeout(600)
    assert all(view.drawing(number) != first[number] for number in range(3))
    label = view.root.locator("canvas").nth(2).get_attribute("aria-label") or ""
    assert label.startswith("Rank 1. ms a step against steps. Newest values: computing ")
    assert len(ranks(server)) == 2

    view.time_press("Pause", "paused")
    view.root.screenshot(path=screenshots / "two ranks.png")
    notebook.page.wait_for_timeout(300)
    held, still = view.rows, view.drawing(1)
    notebook.page.wait_for_timeout(500)
    assert (view.rows, view.drawing(1)) == (held, still)
    assert all(each.cpu_percent(0.2) < 20 for each in ranks(server))
    view.time_press("Continue", "running")
    view.wait_for_rows(more_than=held + 10)

    print(f"milliseconds from click to answer: {view.time_press('Stop', 'stopped'):.0f}")
    assert ranks(server) == []
    notebook.run_cell("wait")
    assert notebook.output_text("wait").strip() == "live run, stopped"
    (output,) = notebook.outputs("two")
    assert "rank  step" in output["data"]["text/plain"]  # what was reported is kept


def test_a_failed_rank_is_shown_and_raised(notebook: Notebook, server: LabServer) -> None:
    notebook.run_cell("failing")
    notebook.wait_for_picture("failing")  # the view itself may be gone already
    assert ranks(server) == []
    (output,) = notebook.outputs("failing")
    words = "RankError: rank 1 of 2 raised ValueError: the loss is not a number"
    assert words in output["data"]["text/plain"]
    with pytest.raises(AssertionError, match="ValueError: the loss is not a number"):
        notebook.run_cell("wait")


@pytest.mark.parametrize("cell", ["wait", "blocking"])
def test_the_kernels_interrupt_ends_the_ranks(
    notebook: Notebook, server: LabServer, cell: str
) -> None:
    if cell == "wait":
        notebook.run_cell("two")
        LiveElement(notebook.page).wait_for_rows(more_than=10)
    notebook.run_cell(cell, wait=False)
    wait_for(lambda: len(ranks(server)) == 2)
    notebook.page.wait_for_timeout(500)
    notebook.interrupt()
    notebook.wait_for_text(cell, "live run, stopped" if cell == "wait" else "ended")
    assert ranks(server) == []


def test_four_ranks_have_lanes_that_stand_in_line(
    notebook: Notebook, server: LabServer, screenshots: Path
) -> None:
    notebook.run_cell("four")
    view = LiveElement(notebook.page)
    view.wait_for_rows(more_than=1400)
    view.press("Pause")
    view.wait_for_state("paused")
    view.root.screenshot(path=screenshots / "four ranks.png")
    print("screenshots in", screenshots)
    loss, *lanes = (each.bounding_box() for each in view.root.locator("canvas").all())
    assert loss and len(lanes) == 4
    assert len({(lane["x"], lane["width"], lane["height"]) for lane in lanes if lane}) == 1
    tops = [lane["y"] for lane in lanes if lane]
    assert tops == sorted(tops) and tops[0] == pytest.approx(loss["y"])
    notebook.theme("JupyterLab Dark")
    view.root.screenshot(path=screenshots / "four ranks, dark.png")
    notebook.theme("JupyterLab Light")
    page = notebook.page
    page.set_viewport_size({"width": 560, "height": 900})
    page.evaluate("() => jupyterapp.commands.execute('application:toggle-left-area')")
    page.wait_for_timeout(500)
    view.root.screenshot(path=screenshots / "four ranks, narrow.png")
    boxes = [each.bounding_box() for each in view.root.locator("canvas").all()]
    bottoms = [box["y"] + box["height"] for box in boxes if box]
    assert all(box["y"] >= bottom for box, bottom in zip(boxes[1:], bottoms, strict=False) if box)
    assert view.root.evaluate("root => root.scrollWidth - root.clientWidth") <= 0
    page.evaluate("() => jupyterapp.commands.execute('application:toggle-left-area')")
    page.set_viewport_size({"width": 1280, "height": 1000})
    view.press("Continue")
    notebook.run_cell("wait")
    (output,) = notebook.outputs("four")
    assert "Finished. Step 150 of 150." in output["data"]["text/plain"]


@pytest.mark.parametrize("how", ["restart", "restart in a pause", "kill"])
def test_a_kernel_that_is_gone_leaves_no_process(
    notebook: Notebook, server: LabServer, how: str
) -> None:
    notebook.run_cell("setup")
    notebook.run_cell("two")
    view = LiveElement(notebook.page)
    view.wait_for_rows(more_than=10)
    started = family(server)
    assert len(started) == 4  # fork server, resource tracker, two ranks
    if how == "restart in a pause":
        view.time_press("Pause", "paused")
    if how == "kill":
        started[0].parent().kill()
    else:
        notebook.page.evaluate(
            "() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()"
        )
    wait_for(lambda: not any(each.is_running() for each in started), 5)
