"""A real JupyterLab and a real browser for tests: started once, ended for sure.

If the process of the tests is killed, nobody closes the server: then it ends itself, some minutes
after the last page was open.

Everything the server writes goes to a temporary folder: settings, workspaces, runtime files and
the notebooks themselves. It listens on loopback only and asks for a token.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import psutil
from playwright.sync_api import Browser, Playwright

from .find_browser import find_browser

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
# Seconds. A kernel with an open page is never ended, nor is a server with a kernel.
SELF_ENDING = [
    "--MappingKernelManager.cull_idle_timeout=120",
    "--MappingKernelManager.cull_interval=30",
    "--ServerApp.shutdown_no_activity_timeout=300",
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
            *SELF_ENDING,
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
    """Start the Chromium that is installed on this machine.

    Raises:
        RuntimeError: there is none.
    """
    path = find_browser()
    if path is None:
        raise RuntimeError(
            "no Chrome or Chromium starts here: python tests/support/find_browser.py --install"
        )
    return playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
