"""A tradeoff in a real JupyterLab: points with names that move, buttons that answer, the twin."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser
from support.lab_server import LabServer, notebook_of
from support.pages import LiveElement, Notebook, opened

pytestmark = pytest.mark.timeout(150)

NAMES = (
    "float32",
    "channels last",
    "pruned to half",
    "pruned to a quarter",
    "int8",
    "pruned to half, int8",
    "int4 weights",
    "int4, trained",
)
SETUP = f"""
import torch; from labkit.compare import Tradeoff
from labkit.widgets import live
from support.tradeoffs import Planted, batches, images

wrong = (77, 78, 82, 108, 79, 83, 160, 91)
speed = (1.0, 1.02, 1.8, 3.0, 4.0, 6.0, 0.95, 0.97)
def tradeoff(rounds, slowest=0.012, spread=1.0):
    models = {{
        name: Planted(range(0, 1000, 1000 // w)[:w], slowest / s**spread)
        for name, w, s in zip({NAMES}, wrong, speed)
    }}
    return Tradeoff(models, batches(1000, 100), images(64), rounds=rounds)
"""
CELLS = {
    "setup": SETUP,
    # before "again", whose view outlives its run because the page is loaded anew
    "wide": "run = live(tradeoff(5000, slowest=0.06, spread=2.5))",
    "long": "long = tradeoff(500)\nrun = live(long)",
    "again": "run = live(long)",
    "short": "run = live(tradeoff(15))",
    "points": (
        "value = long.samples.value\n"
        "points = ((value(n, 'accuracy'), value(n, 'latency')) for n in long.variants)\n"
        "print(*(f'{y.value} {x.value}' for y, x in points))"
    ),
    "wait": "await run\nprint(run)",
}
RECORD = """() => {
    const draw = CanvasRenderingContext2D.prototype.fillText;
    const clear = CanvasRenderingContext2D.prototype.clearRect;
    window.written = [];
    CanvasRenderingContext2D.prototype.clearRect = function (...where) {
        window.written = [];
        return clear.apply(this, where);
    };
    CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
        const width = this.measureText(text).width;
        const left = x - { left: 0, center: 0.5, right: 1 }[this.textAlign] * width;
        window.written.push([text, left, y - 8, left + width, y + 8]);
        return draw.call(this, text, x, y);
    };
}"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return notebook_of(CELLS, tmp_path_factory.mktemp("made") / "tradeoff.ipynb")


@pytest.fixture(scope="module")
def notebook(browser: Browser, server: LabServer, source: Path) -> Iterator[Notebook]:
    with opened(browser, server, source) as shared:
        shared.run_cell("setup")
        shared.page.evaluate(RECORD)
        yield shared


def label(view: LiveElement) -> str:
    return view.root.locator("canvas").get_attribute("aria-label") or ""


def names_on_canvas(notebook: Notebook) -> dict[str, list[float]]:
    written: list[list[Any]] = notebook.page.evaluate("() => window.written")
    return {text: box for text, *box in written if text in NAMES}


def overlaps(boxes: dict[str, list[float]]) -> list[tuple[str, str]]:
    return [
        (one, other)
        for (one, a), (other, b) in combinations(boxes.items(), 2)
        if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
    ]


def test_points_have_names_and_buttons_answer(notebook: Notebook, screenshots: Path) -> None:
    notebook.run_cell("long")
    view = LiveElement(notebook.page)
    view.wait_for_rows(more_than=24)
    first, rows = view.drawing(), view.rows
    view.wait_for_rows(more_than=rows + 24)
    notebook.page.wait_for_timeout(300)
    view.wait_for_another_drawing(first)
    notebook.wait_for_text("long", " 2 of 10 test batches")  # the points have moved
    milliseconds = view.time_press("Pause", "paused")
    notebook.page.wait_for_timeout(300)
    boxes = names_on_canvas(notebook)
    assert set(boxes) == set(NAMES) and overlaps(boxes) == []
    text = label(view)
    assert text.startswith("Accuracy against latency. accuracy (%) against milliseconds a batch of")
    assert all(re.search(rf"[:,] {name} [\d.]+ at [\d.]+[.,]", text) for name in NAMES)
    notebook.run_cell("points")
    kernel = [float(number) for number in notebook.output_text("points").split()]
    shown = [float(x) for pair in re.findall(r" ([\d.]+) at ([\d.]+)[,.]", text) for x in pair]
    assert shown == pytest.approx(kernel, rel=1e-3)
    view.root.screenshot(path=screenshots / "tradeoff.png")
    notebook.theme("JupyterLab Dark")
    view.root.screenshot(path=screenshots / "tradeoff, dark.png")
    notebook.theme("JupyterLab Light")
    view.time_press("Continue", "running")
    stopping = view.time_press("Stop", "stopped")
    print(f"milliseconds to pause {milliseconds:.0f}, to stop {stopping:.0f}; {screenshots}")
    notebook.run_cell("wait")
    assert notebook.output_text("wait").strip() == "live run, stopped"
    (output,) = notebook.outputs("long")
    assert output["data"]["text/plain"].startswith("Stopped at ")
    assert "image/png" in output["data"] and "int4 weights" in output["data"]["text/plain"]


def test_a_page_that_is_loaded_again_shows_all_points(notebook: Notebook) -> None:
    notebook.run_cell("again")  # a stopped one goes on
    view = LiveElement(notebook.page)
    view.wait_for_rows(more_than=24)
    view.press("Pause")
    view.wait_for_state("paused")
    notebook.page.wait_for_timeout(300)
    before = label(view), view.rows
    notebook.save()
    notebook.reload()
    notebook.page.evaluate(RECORD)
    view = LiveElement(notebook.page)
    view.wait_for_rows(more_than=24)
    assert (label(view), view.rows) == before
    view.press("Stop")
    view.wait_for_state("stopped")


def test_the_twin_stays_at_the_end(notebook: Notebook) -> None:
    notebook.run_cell("short")
    notebook.run_cell("wait")
    assert notebook.output_text("wait").strip() == "live run, finished"
    notebook.wait_for_picture("short")
    (output,) = notebook.outputs("short")
    alt = output["metadata"]["image/png"]["alt"]
    assert alt.startswith("Finished. Round 15 of 15, 10 of 10 test batches.")
    assert "pruned to a quarter   89.20" in alt


def test_a_narrow_page_has_room_for_all_names(notebook: Notebook, screenshots: Path) -> None:
    page = notebook.page
    page.set_viewport_size({"width": 560, "height": 900})
    page.evaluate("() => jupyterapp.commands.execute('application:toggle-left-area')")
    notebook.run_cell("wide")
    view = LiveElement(page)
    view.wait_for_rows(more_than=24)
    view.press("Pause")
    view.wait_for_state("paused")
    page.wait_for_timeout(500)
    boxes = names_on_canvas(notebook)
    assert set(boxes) == set(NAMES) and overlaps(boxes) == []
    texts = {text for text, *_ in page.evaluate("() => window.written")}
    assert {"milliseconds a batch of 64 (log scale)", "10", "50"} <= texts
    assert view.root.evaluate("root => root.scrollWidth - root.clientWidth") <= 0
    view.root.screenshot(path=screenshots / "tradeoff, narrow.png")
    page.evaluate("() => jupyterapp.commands.execute('application:toggle-left-area')")
    page.set_viewport_size({"width": 1280, "height": 1000})
    view.press("Stop")
    view.wait_for_state("stopped")
