"""What does watching cost, and how quickly do the buttons answer?

Both are measured where they matter: in a real JupyterLab, with the page open in a real browser on
the same machine, while the lab's conv net trains at full speed in the background.

Cost: one race is shown live. In every other block of rounds its feed does a whole block at once, so
that no update comes in between; the time a round takes with updates is compared with that of the
block just before. Latency: from the click until the kernel has said that the run is held.
"""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.rows import Row, not_installed
from labkit import Race, Recipe, data, models
from labkit.compare.watched import RaceFeed
from labkit.measure.statistics import Estimate, median_interval, paired_ratio

ROOT = Path(__file__).resolve().parent.parent
CELLS = {
    "setup": "from benchmarks import live_view\nfrom labkit.widgets import live\n"
    "feed = live_view.BlocksFeed({rounds}, {blocks})",
    "cost": "run = live(feed)",
    "wait": "await run",
    "result": "import json; print(json.dumps(feed.result()))",
    "race": "run = live(live_view.endless_race())",
    "stop": "run.stop(); run.wait()",
}


def run(quick: bool = False) -> list[Row]:
    """Return the cost of the live view in per cent of a step, and the latency of Pause."""
    if find_spec("playwright") is None:
        return [not_installed("live view", "playwright")]
    with _notebook(rounds=6 if quick else 12, blocks=8 if quick else 60) as notebook:
        return [_cost(notebook), _latency(notebook, clicks=6 if quick else 40)]


class BlocksFeed(RaceFeed):
    """A race that does every other block of rounds in one unit of work, out of the view's reach.

    Args:
        rounds: of a block.
        blocks: pairs of blocks, one without updates and one with them.
    """

    def __init__(self, rounds: int, blocks: int) -> None:
        super().__init__(endless_race())
        self.rounds, self.blocks = rounds, blocks
        self.without: list[float] = []
        self.watched: list[float] = []
        self._left = 0
        self._began: float | None = None
        for _ in range(5):  # not to measure how kernels are built
            self.race.advance()

    def advance(self) -> bool:
        """Do one round that is watched, or a block that is not."""
        if self._left:
            self._left -= 1
            self.race.advance()
            return True
        now = perf_counter()
        if self._began is not None:
            self.watched.append((now - self._began) / self.rounds)
        if len(self.watched) == self.blocks:
            return False
        for _ in range(self.rounds):
            self.race.advance()
        self._began, self._left = perf_counter(), self.rounds
        self.without.append((self._began - now) / self.rounds)
        return True

    def result(self) -> dict[str, list[float]]:
        """Return seconds a round, block by block."""
        return {"without": self.without, "watched": self.watched}


def endless_race() -> Race:
    """Return a race of two arms that lasts longer than anybody watches."""
    recipe = Recipe(models.convnet, data.fashion(train=12_800, test=1_000), steps=100_000)
    return Race({"one": recipe, "its copy": recipe}, seeds=1)


def _cost(notebook: Any) -> Row:
    for cell_id in ("setup", "cost", "wait", "result"):
        notebook.run_cell(cell_id)
    times = json.loads(notebook.output_text("result"))
    ratio = paired_ratio(times["watched"], times["without"])
    percent = Estimate(*(100 * (x - 1) for x in (ratio.value, ratio.low, ratio.high)), ratio.n)
    return Row("live view, cost of watching", percent, "% of step time", "conv net, page open")


def _latency(notebook: Any, clicks: int) -> Row:
    from tests.support.pages import LiveElement

    notebook.run_cell("race")
    live = LiveElement(notebook.page)
    live.wait_for_rows(more_than=0)
    times = []
    for click in range(clicks):
        notebook.page.wait_for_timeout(250 + 37 * (click % 7))  # not in step with the training
        times.append(live.time_press("Pause", "paused"))
        live.time_press("Continue", "running")
    notebook.run_cell("stop")
    milliseconds = median_interval(times)
    note = f"median; slowest {max(times):.0f} ms; conv net at full speed"
    return Row("live view, click on Pause to held", milliseconds, "ms", note)


@contextlib.contextmanager
def _notebook(**numbers: int) -> Iterator[Any]:
    # Here, because the kernel imports this file too, and needs no browser.
    from playwright.sync_api import sync_playwright

    from tests.support.lab_server import LabServer, notebook_of, start_browser
    from tests.support.pages import opened

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        cells = {**CELLS, "setup": CELLS["setup"].format(**numbers)}
        path = notebook_of(cells, Path(folder) / "live_view.ipynb")
        server = LabServer(Path(folder) / "lab", ROOT)
        stack.callback(server.close)
        server.wait_until_ready()
        browser = start_browser(stack.enter_context(sync_playwright()))
        stack.callback(browser.close)
        notebook = stack.enter_context(opened(browser, server, path))
        notebook.page.set_default_timeout(600_000)  # the cost alone takes minutes
        yield notebook
