"""The first notebook, driven as a reader would: in a real browser."""

from __future__ import annotations

import base64
from pathlib import Path

import nbformat
import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import Browser
from support.lab_server import LabServer
from support.pages import LiveElement, Notebook, opened

pytestmark = pytest.mark.timeout(280)


def test_the_first_notebook_works_in_a_browser(
    root: Path, browser: Browser, server: LabServer, screenshots: Path
) -> None:
    with opened(browser, server, root / "notebooks" / "00_start_here.ipynb") as notebook:
        drive(notebook, screenshots)


def drive(notebook: Notebook, screenshots: Path) -> None:
    page = notebook.page
    live_cell = notebook.run_until(".labkit-live")
    live = LiveElement(page)
    live.wait_for_rows(more_than=0)
    rows, drawing = live.rows, live.drawing()
    live.wait_for_rows(more_than=rows)
    live.wait_for_another_drawing(drawing)

    latencies = {"Pause": live.time_press("Pause", "paused")}
    rows = live.rows
    live.root.evaluate("root => root.scrollIntoView({ block: 'center' })")
    page.screenshot(path=screenshots / "00 live.png")
    latencies["Continue"] = live.time_press("Continue", "running")
    live.wait_for_rows(more_than=rows)
    latencies["Stop"] = live.time_press("Stop", "stopped")
    print("milliseconds from click to answer:", {k: round(v) for k, v in latencies.items()})

    notebook.run_cell(live_cell)  # a stopped race goes on, or begins again, when it is run again
    knob_cell = notebook.run_until(".labkit-knob", after=live_cell)
    knob = page.locator(".labkit-knob").first
    before = knob.locator("img").get_attribute("src")
    control = knob.locator("input, select").first
    control.press("ArrowRight")
    if control.evaluate("each => each.value") == control.evaluate("each => each.max"):
        control.press("ArrowLeft")  # it stood at its end already
    page.locator('.labkit-knob[data-busy="false"]:not([data-turn="0"])').first.wait_for()
    assert knob.locator("img").get_attribute("src") != before

    saved = nbformat.read(notebook.save(), as_version=4)
    outputs = {cell.id: cell.outputs for cell in saved.cells if cell.cell_type == "code"}
    assert "widgets" not in saved.metadata
    page_of_it, _ = HTMLExporter().from_notebook_node(saved)
    for cell_id in (live_cell, knob_cell):
        data = next(o.data for o in outputs[cell_id] if "image/png" in o.get("data", {}))
        assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
        assert data["image/png"].strip() in page_of_it
