"""A real JupyterLab and a real browser for tests: started once, ended for sure.

Everything the server writes goes to a temporary folder: settings, workspaces, runtime files and
the notebooks themselves. It listens on loopback only and asks for a token.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import psutil
from playwright.sync_api import Browser, Page, Playwright

CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SETTINGS = {
    "apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    "notebook-extension/tracker": {"windowingMode": "none"},
    "docmanager-extension/plugin": {"autosave": False},
    "apputils-extension/themes": {"adaptive-theme": False},
}


def notebook_of(cells: Mapping[str, str], path: Path) -> Path:
    """Write a notebook of code cells, {id: source}, and return its path."""
    made = nbformat.v4.new_notebook()
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    made.cells = [nbformat.v4.new_code_cell(text, id=name) for name, text in cells.items()]
    nbformat.write(made, path)
    return path


class LabServer:
    """A JupyterLab server of its own, serving nothing but `folder`.

    Args:
        scratch: empty folder for everything the server writes.
        project: the project's top folder, put on the kernels' path.
    """

    def __init__(self, scratch: Path, project: Path) -> None:
        self.folder = scratch / "notebooks"
        self.folder.mkdir(parents=True)
        self.token = secrets.token_hex(16)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = (scratch / "server.log").open("wb")
        self._process = subprocess.Popen(
            self._command(),
            env=self._environment(scratch, project),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _command(self) -> list[str]:
        return [
            sys.executable,
            "-m",
            "jupyterlab",
            "--no-browser",
            "--allow-root",
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={self.port}",
            "--ServerApp.port_retries=0",
            f"--ServerApp.root_dir={self.folder}",
            f"--IdentityProvider.token={self.token}",
            "--LabApp.expose_app_in_browser=True",
        ]

    def _environment(self, scratch: Path, project: Path) -> dict[str, str]:
        settings = scratch / "settings" / "@jupyterlab"
        for name, values in SETTINGS.items():
            path = settings / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values), encoding="utf-8")
        folders = {
            "JUPYTER_CONFIG_DIR": scratch / "config",
            "JUPYTER_DATA_DIR": scratch / "data",
            "JUPYTER_RUNTIME_DIR": scratch / "runtime",
            "JUPYTERLAB_SETTINGS_DIR": scratch / "settings",
            "JUPYTERLAB_WORKSPACES_DIR": scratch / "workspaces",
            "IPYTHONDIR": scratch / "ipython",
            "LABKIT_RESULTS": scratch / "results",
        }
        path = os.pathsep.join([str(project), str(project / "tests")])
        own = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "LABKIT_PROFILE": "smoke"}
        return {**os.environ, **own, **{name: str(folder) for name, folder in folders.items()}}

    def wait_until_ready(self, seconds: float = 60) -> None:
        """Return when the server answers.

        Raises:
            RuntimeError: it ended, or did not answer in time; with the end of its log.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self.api("GET", "status")
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        self._log.flush()
        log = Path(self._log.name).read_text(errors="replace")[-2000:]
        raise RuntimeError(f"JupyterLab did not start:\n{log}")

    def api(self, method: str, path: str) -> Any:
        """Ask the server's REST interface; return the decoded answer."""
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.url}/api/{path}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def end_kernels(self, path: str | None = None) -> None:
        """Shut down the kernel of one notebook, or all kernels."""
        for session in self.api("GET", "sessions"):
            if path in (None, session["path"]):
                self.api("DELETE", f"sessions/{session['id']}")

    def close(self) -> None:
        """End kernels and server; whatever does not end by itself is killed."""
        family = [self._process, *_children(self._process.pid)]
        with contextlib.suppress(OSError):  # gone or stuck: the signals below end what is left
            self.end_kernels()
        family += [child for child in _children(self._process.pid) if child not in family]
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        for child in family[1:]:
            if child.is_running():
                child.kill()
        self._log.close()


def _children(pid: int) -> list[Any]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def start_browser(playwright: Playwright) -> Browser:
    """Start the Chromium that is installed on this machine."""
    return playwright.chromium.launch(executable_path=_browser_path(), args=CHROMIUM_FLAGS)


def _browser_path() -> str:
    from find_browser import find_browser

    return str(find_browser())


class Notebook:
    """A notebook open in JupyterLab, in a page of its own."""

    def __init__(self, page: Page, server: LabServer, path: str) -> None:
        self.page, self.server, self.path = page, server, path
        page.set_default_timeout(30_000)
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


@contextlib.contextmanager
def opened(browser: Browser, server: LabServer, source: Path) -> Iterator[Notebook]:
    """Open a copy of a notebook in a page of its own; its page and its kernel end afterwards."""
    path = f"{secrets.token_hex(4)}_{source.name}"
    shutil.copy(source, server.folder / path)
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
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

    @property
    def rows(self) -> int:
        """Rows that are drawn."""
        return int(self.root.get_attribute("data-rows") or 0)

    def wait_for_state(self, state: str) -> None:
        """Return when the kernel has said that the run is in `state`."""
        self.page.locator(f'.labkit-live[data-state="{state}"]').first.wait_for(state="attached")

    def wait_for_rows(self, more_than: int) -> None:
        """Return when more rows are drawn."""
        self.page.wait_for_function(
            "least => document.querySelector('.labkit-live').dataset.rows > least", arg=more_than
        )

    def drawing(self, number: int = 0) -> str:
        """Return what is on a canvas, as a data URL: two that differ look different."""
        url: str = self.root.locator("canvas").nth(number).evaluate("each => each.toDataURL()")
        return url

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
                setTimeout(() => reject(new Error(`not ${state} after 30 s`)), 30_000);
            })""",
            [name, state],
        )
        return milliseconds
