"""A notebook in a page of JupyterLab, and the live view in it, as a reader has them."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

from .lab_server import LabServer  # relative: the benchmarks import this as tests.support.pages


class Notebook:
    """A notebook open in JupyterLab, in a page of its own."""

    def __init__(self, page: Page, server: LabServer, path: str) -> None:
        self.page, self.server, self.path = page, server, path
        page.set_default_timeout(90_000)  # beside others on two cores
        page.goto(f"{server.url}/lab/tree/{path}?token={server.token}")
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        name = Path(self.path).name
        self.page.wait_for_function(
            """name => window.jupyterapp?.shell?.currentWidget?.title?.label === name""", arg=name
        )
        self.page.evaluate(
            """async () => {
                const panel = jupyterapp.shell.currentWidget;
                await jupyterapp.restored; await panel.context.ready;
                await panel.sessionContext.ready;
                await panel.sessionContext.session.kernel.info;
            }"""
        )

    def reload(self) -> None:
        """Load the page again, as a reader does; the kernel goes on."""
        self.page.reload()
        self._wait_until_ready()

    def cell_ids(self) -> list[str]:
        """Return the ids of all cells, in order."""
        ids: list[str] = self.page.evaluate(
            "() => jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model.id)"
        )
        return ids

    def run_cell(self, cell_id: str, wait: bool = True) -> None:
        """Run the cell with this id; with `wait`, until the kernel has answered.

        Raises:
            AssertionError: the cell shows an error.
        """
        self.page.evaluate(
            """([id, wait]) => {
                const { content } = jupyterapp.shell.currentWidget;
                const index = content.widgets.findIndex(cell => cell.model.id === id);
                if (index < 0) throw new Error(`no cell ${id}`);
                content.deselectAll();
                content.activeCellIndex = index;
                const done = jupyterapp.commands.execute("notebook:run-cell");
                return wait ? done.then(() => null) : null;
            }""",
            [cell_id, wait],
        )
        if wait:
            failed = [each for each in self.outputs(cell_id) if each["output_type"] == "error"]
            assert not failed, f"cell {cell_id}:\n" + "\n".join(failed[0]["traceback"])

    def outputs(self, cell_id: str) -> list[dict[str, Any]]:
        """Return the cell's outputs as they would be saved."""
        outputs: list[dict[str, Any]] = self.page.evaluate(
            """id => jupyterapp.shell.currentWidget.content.widgets
                .find(cell => cell.model.id === id).model.outputs?.toJSON() ?? []""",
            cell_id,
        )
        return outputs

    def run_until(self, selector: str, after: str | None = None) -> str:
        """Run cells, from the top or after one, until an element of this kind is in an output.

        Returns:
            The id of the cell that made it.

        Raises:
            AssertionError: no cell made one.
        """
        ids = self.cell_ids()
        for cell_id in ids[ids.index(after) + 1 if after else 0 :]:
            self.run_cell(cell_id)
            if self.page.locator(selector).count():
                return cell_id
        raise AssertionError(f"no cell of {self.path} made {selector}")

    def output_text(self, cell_id: str) -> str:
        """Return what the cell's output area shows as text."""
        text: str = self.page.evaluate(
            """id => jupyterapp.shell.currentWidget.content.widgets
                .find(cell => cell.model.id === id).outputArea.node.innerText""",
            cell_id,
        )
        return text

    def wait_for_picture(self, cell_id: str) -> None:
        """Return when the cell's output shows a picture."""
        self.page.wait_for_function(
            """id => jupyterapp.shell.currentWidget.content.widgets
                .find(cell => cell.model.id === id).outputArea.node.querySelector("img")""",
            arg=cell_id,
        )

    def wait_for_text(self, cell_id: str, text: str) -> None:
        """Return when the cell's output shows this text."""
        self.page.wait_for_function(
            """([id, text]) => jupyterapp.shell.currentWidget.content.widgets
                .find(cell => cell.model.id === id).outputArea.node.innerText.includes(text)""",
            arg=[cell_id, text],
        )

    def interrupt(self) -> None:
        """Press the kernel's Interrupt."""
        self.page.evaluate("() => jupyterapp.commands.execute('notebook:interrupt-kernel')")

    def save(self) -> Path:
        """Save, and return the path of the file."""
        self.page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
        return self.server.folder / self.path

    def theme(self, name: str) -> None:
        """Switch to a theme such as "JupyterLab Dark"."""
        self.page.evaluate(
            "name => jupyterapp.commands.execute('apputils:change-theme', { theme: name })", name
        )
        light = str("Dark" not in name).lower()
        self.page.wait_for_selector(f'body[data-jp-theme-light="{light}"]', state="attached")
        self.page.wait_for_timeout(800)


# Notes all states that live views pass through.
STATES = """
window.labkitStates = [];
new MutationObserver((changes) => {
    for (const { target } of changes) window.labkitStates.push(target.dataset.state);
}).observe(document, { subtree: true, attributeFilter: ["data-state"] });
"""


@contextlib.contextmanager
def opened(browser: Browser, server: LabServer, source: Path) -> Iterator[Notebook]:
    """Open a copy of a notebook in a page of its own; its page and its kernel end afterwards."""
    path = f"{secrets.token_hex(4)}_{source.name}"
    shutil.copy(source, server.folder / path)
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    context.add_init_script(STATES)
    try:
        yield Notebook(context.new_page(), server, path)
    finally:
        context.close()
        server.end_kernels(path)


class LiveElement:
    """The live view in a page: the first one, if there are several."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.root = page.locator(".labkit-live").first
        self.root.wait_for()
        self.before: int = page.evaluate("() => window.labkitStates.length")

    @property
    def rows(self) -> int:
        """Rows that are drawn."""
        return int(self.root.get_attribute("data-rows") or 0)

    def wait_for_state(self, state: str) -> None:
        """Return when the kernel has said that the run is in `state`.

        A view that has ended gives place to its picture, sooner than it may be looked for. So what
        counts is that it was in that state.
        """
        self.page.wait_for_function(
            """([state, before]) =>
                document.querySelector(".labkit-live")?.dataset.state === state
                || window.labkitStates.slice(before).includes(state)""",
            arg=[state, self.before],
        )
        self.before = self.page.evaluate("() => window.labkitStates.length")

    def wait_for_rows(self, more_than: int) -> None:
        """Return when more rows are drawn."""
        self.page.wait_for_function(
            "least => document.querySelector('.labkit-live').dataset.rows > least", arg=more_than
        )

    def drawing(self, number: int = 0) -> str:
        """Return what is on a canvas, as a data URL: two that differ look different."""
        url: str = self.root.locator("canvas").nth(number).evaluate("each => each.toDataURL()")
        return url

    def wait_for_another_drawing(self, than: str, number: int = 0) -> None:
        """Return when a canvas shows something else: new rows may belong to another panel."""
        self.page.wait_for_function(
            """([number, than]) => document.querySelector('.labkit-live')
                .querySelectorAll('canvas')[number].toDataURL() !== than""",
            arg=[number, than],
        )

    def press(self, name: str) -> None:
        """Click the button with this text."""
        self.root.get_by_role("button", name=name, exact=True).click()

    def time_press(self, name: str, state: str) -> float:
        """Click a button; return the milliseconds until the kernel has said that it is done."""
        milliseconds: float = self.root.evaluate(
            """(root, [name, state]) => new Promise((resolve, reject) => {
                const buttons = [...root.querySelectorAll("button")];
                const start = performance.now();
                new MutationObserver((_, observer) => {
                    if (root.dataset.state !== state) return;
                    observer.disconnect();
                    resolve(performance.now() - start);
                }).observe(root, { attributes: true });
                buttons.find(button => button.textContent === name).click();
                setTimeout(() => reject(new Error(`not ${state} after 90 s`)), 90_000);
            })""",
            [name, state],
        )
        return milliseconds
