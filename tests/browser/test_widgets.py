"""Live view and knob in a real JupyterLab, with made-up work behind them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbconvert import HTMLExporter
from PIL import Image
from playwright.sync_api import Browser, Page
from support.lab_server import LabServer, notebook_of
from support.pages import LiveElement, Notebook, opened

pytestmark = pytest.mark.timeout(120)

SETUP = """
import warnings; warnings.filterwarnings("error", module="labkit")
from support.synthetic_feed import StackedFeed, SyntheticFeed
from labkit.widgets import figure, label_axes, live, knob, line_style, Slider
"""
KNOB = """
def wave(speed=3, kind="sine"):
    if speed == 5:
        raise ValueError("five is too fast")
    fig = figure(9.2, 3)
    axes = fig.add_subplot()
    label_axes(axes, "A wave", "time (s)", "height (m)")
    axes.plot(range(100), [(i * speed) % (7 if kind == "sine" else 3) for i in range(100)])
    return fig, f"{kind} at {speed}"
knob(wave, speed=Slider(1, 9, unit="Hz"), kind=["sine", "square"])
"""


CELLS = {
    "setup": SETUP,
    "race": "run = live(SyntheticFeed(rounds=3000, seconds=0.02))",
    "wait": "await run\nprint(run)",
    "bands": "run = live(StackedFeed(rounds=3000, seconds=0.02))",
    "failing": "run = live(SyntheticFeed(rounds=100, seconds=0.02, fail_at=30))",
    "knob": KNOB,
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return notebook_of(CELLS, tmp_path_factory.mktemp("made") / "widgets.ipynb")


@pytest.fixture(scope="module")
def notebook(browser: Browser, server: LabServer, source: Path) -> Iterator[Notebook]:
    """One page for all tests here: a new run ends the one before."""
    with opened(browser, server, source) as shared:
        shared.run_cell("setup")
        yield shared


@pytest.fixture
def page(notebook: Notebook) -> Page:
    return notebook.page


@pytest.fixture
def race(notebook: Notebook) -> LiveElement:
    notebook.run_cell("race")
    return LiveElement(notebook.page)


def image_bytes(notebook: Notebook, cell_id: str) -> bytes:
    (output,) = notebook.outputs(cell_id)
    return base64.b64decode(output["data"]["image/png"])


def test_curves_move_and_buttons_answer(race: LiveElement, notebook: Notebook, page: Page) -> None:
    race.wait_for_rows(more_than=10)
    before, first = race.rows, race.drawing()
    race.wait_for_rows(more_than=before)
    race.wait_for_another_drawing(first)

    latencies = {"Pause": race.time_press("Pause", "paused")}
    page.wait_for_timeout(300)
    held, still = race.rows, race.drawing()
    page.wait_for_timeout(500)
    assert (race.rows, race.drawing()) == (held, still)
    assert race.root.locator(".lk-words").inner_text().startswith("Paused · ")

    latencies["Continue"] = race.time_press("Continue", "running")
    race.wait_for_rows(more_than=held)
    latencies["Stop"] = race.time_press("Stop", "stopped")
    print("milliseconds from click to answer:", {k: round(v) for k, v in latencies.items()})

    notebook.run_cell("wait")
    assert notebook.output_text("wait").strip() == "live run, stopped"
    assert image_bytes(notebook, "race").startswith(b"\x89PNG")
    assert race.root.count() == 0  # the twin has taken its place


def test_buttons_answer_while_the_next_cell_waits(race: LiveElement, notebook: Notebook) -> None:
    notebook.run_cell("wait", wait=False)
    race.wait_for_rows(more_than=30)
    latencies = {"Pause": race.time_press("Pause", "paused")}
    latencies["Continue"] = race.time_press("Continue", "running")
    latencies["Stop"] = race.time_press("Stop", "stopped")
    print("milliseconds while a cell awaits:", {k: round(v) for k, v in latencies.items()})
    notebook.wait_for_text("wait", "live run, stopped")


def test_everything_can_be_done_from_the_keyboard(race: LiveElement, page: Page) -> None:
    race.root.get_by_role("button", name="steps", exact=True).focus()
    for key in ("Tab", "Enter", "Tab", "Enter"):  # on to the other axis, on to Pause
        page.keyboard.press(key)
    race.wait_for_state("paused")
    pressed = race.root.locator(".lk-axis button")
    assert [each.get_attribute("aria-pressed") for each in pressed.all()] == ["false", "true"]
    for key in ("Space", "Tab", "Space"):  # Continue, on to Stop
        page.keyboard.press(key)
    race.wait_for_state("stopped")


def test_the_x_axis_can_be_chosen(race: LiveElement) -> None:
    race.wait_for_rows(more_than=40)
    race.press("Pause")
    race.wait_for_state("paused")
    canvas = race.root.locator("canvas").first
    assert "against steps." in (canvas.get_attribute("aria-label") or "")
    before = race.drawing()
    race.press("training seconds")
    race.page.wait_for_function(
        "old => document.querySelector('.labkit-live canvas').toDataURL() !== old", arg=before
    )
    label = canvas.get_attribute("aria-label") or ""
    assert "against training seconds. Newest values: float32 " in label


def test_a_page_that_is_loaded_again_shows_all(
    browser: Browser, server: LabServer, source: Path
) -> None:
    with opened(browser, server, source) as notebook:
        for cell_id in ("setup", "knob", "race"):
            notebook.run_cell(cell_id)
        notebook.save()
        live, knob = LiveElement(notebook.page), notebook.page.locator(".labkit-knob")
        live.wait_for_rows(more_than=60)
        for turn, text in enumerate(("sine at 2", "sine at 1"), start=1):
            live.time_press("Pause", "paused")  # buttons that were used before are the hard case
            live.time_press("Continue", "running")
            knob.locator("input").press("ArrowLeft")
            notebook.page.locator(f'.labkit-knob[data-turn="{turn}"]').wait_for()
            rows = live.rows
            notebook.reload()
            live, knob = LiveElement(notebook.page), notebook.page.locator(".labkit-knob")
            live.wait_for_rows(more_than=rows)
            rows = live.rows
            live.wait_for_rows(more_than=rows)  # and it goes on
            assert knob.locator("p").first.inner_text() == text
        live.time_press("Pause", "paused")
        live.time_press("Stop", "stopped")
        assert live.root.get_by_role("button", name="Stop", exact=True).is_disabled()


def test_the_kernels_interrupt_is_a_polite_stop(race: LiveElement, notebook: Notebook) -> None:
    race.wait_for_rows(more_than=10)
    notebook.run_cell("wait", wait=False)
    notebook.page.wait_for_timeout(300)
    notebook.interrupt()
    notebook.wait_for_text("wait", "live run, stopped")
    notebook.run_cell("race")  # running it again works
    assert LiveElement(notebook.page).root.get_attribute("data-state") == "running"


def test_running_the_cell_again_replaces_the_run(race: LiveElement, notebook: Notebook) -> None:
    race.wait_for_rows(more_than=100)
    notebook.run_cell("race")
    again = LiveElement(notebook.page)
    again.wait_for_state("running")
    assert again.root.count() == 1
    again.press("Stop")
    again.wait_for_state("stopped")


def test_an_error_is_shown_where_the_curves_were(notebook: Notebook) -> None:
    notebook.run_cell("failing")
    notebook.wait_for_picture("failing")  # the view itself may be gone already
    (output,) = notebook.outputs("failing")
    assert "RuntimeError: the loss is not a number" in output["data"]["text/plain"]


def test_the_saved_notebook_has_picture_and_table(
    race: LiveElement, notebook: Notebook, page: Page
) -> None:
    race.press("Stop")
    notebook.run_cell("wait")
    saved = nbformat.read(notebook.save(), as_version=4)
    (output,) = next(cell.outputs for cell in saved.cells if cell.id == "race")
    assert sorted(output.data) == ["image/png", "text/plain"]  # no widget that would be dead
    assert "bfloat16  46.9 (46.5 to 47.2)  0.77x (0.75 to 0.79)  87.1" in output.data["text/plain"]
    assert "widgets" not in saved.metadata
    page_of_it, _ = HTMLExporter().from_notebook_node(saved)
    assert output.data["image/png"].strip() in page_of_it


def test_a_knob_moved_by_keyboard_changes_the_figure(notebook: Notebook, page: Page) -> None:
    notebook.run_cell("knob")
    root = page.locator(".labkit-knob")
    image, words = root.locator("img"), root.locator("p").first
    assert image.get_attribute("alt") == "Figure for speed 3 Hz, kind sine. sine at 3"
    size = image.evaluate("image => image.decode().then(() => image.naturalWidth)")
    assert size > 900
    before = image.get_attribute("src")
    root.locator("input").press("ArrowRight")
    page.locator('.labkit-knob[data-turn="1"][data-busy="false"]').wait_for()
    assert words.inner_text() == "sine at 4"
    assert image.get_attribute("src") != before
    root.locator("input").press("ArrowRight")
    page.locator('.labkit-knob[data-turn="2"]').wait_for()
    assert root.get_by_role("alert").inner_text() == "ValueError: five is too fast"
    root.locator("input").press("ArrowRight")
    root.locator("select").select_option("square")
    page.locator('.labkit-knob[data-turn="4"]').wait_for()
    assert words.inner_text() == "square at 6"
    assert root.locator(".lk-error").text_content() == ""


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_it_can_be_read_in_light_and_dark(
    notebook: Notebook, page: Page, theme: str, screenshots: Path
) -> None:
    notebook.theme(theme)
    for cell_id in ("race", "bands"):
        notebook.run_cell(cell_id)
        live = LiveElement(page)
        live.wait_for_rows(more_than=100)
        live.press("Pause")
        live.wait_for_state("paused")
        shot = live.root.screenshot(path=screenshots / f"{cell_id} {theme}.png")
        assert_readable(shot, dark="Dark" in theme)
    print("screenshots in", screenshots)
    notebook.theme("JupyterLab Light")


def test_a_narrow_page_is_still_whole(race: LiveElement, page: Page, screenshots: Path) -> None:
    page.set_viewport_size({"width": 560, "height": 900})
    page.evaluate("() => jupyterapp.commands.execute('application:toggle-left-area')")
    race.wait_for_rows(more_than=100)
    race.root.screenshot(path=screenshots / "narrow.png")
    overflow = race.root.evaluate("root => root.scrollWidth - root.clientWidth")
    assert overflow <= 0
    boxes = [canvas.bounding_box() for canvas in race.root.locator("canvas").all()]
    assert boxes[0] and boxes[1] and boxes[1]["y"] >= boxes[0]["y"] + boxes[0]["height"]
    page.evaluate("() => jupyterapp.commands.execute('application:toggle-left-area')")
    page.set_viewport_size({"width": 1280, "height": 1000})


def assert_readable(png: bytes, dark: bool) -> None:
    """Most of the view is its background, and enough of it stands out from that."""
    grey = Image.open(io.BytesIO(png)).convert("L")
    counts = grey.histogram()
    background = max(range(256), key=counts.__getitem__)
    assert (background < 60) if dark else (background > 220)
    far = sum(n for level, n in enumerate(counts) if abs(level - background) > 110)
    assert far > 0.005 * grey.width * grey.height
