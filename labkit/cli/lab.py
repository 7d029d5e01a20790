"""`labkit lab`: JupyterLab on the first notebook.

The server listens on the loopback address only and keeps its token. Without a browser on this
machine Jupyter goes on and prints the address to open. News and update checks are off: the lab
makes no request to the outside.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from labkit.cli import UsageError, install, places

FIRST_NOTEBOOK = "notebooks/00_start_here.ipynb"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `labkit lab` takes."""
    parser.add_argument(
        "--no-browser", action="store_true", help="only print the address, for a remote machine"
    )


def command(root: Path, browser: bool = True) -> list[str]:
    """Return the command line that starts JupyterLab for the clone in `root`."""
    words = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={root}",
        "--ServerApp.ip=127.0.0.1",
        f"--LabApp.default_url=/lab/tree/{FIRST_NOTEBOOK}",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        words.append("--allow-root")  # in a container everybody is root
    if not browser:
        words.append("--no-browser")
    return words


def main(arguments: argparse.Namespace) -> int:
    """Start JupyterLab in place of this process (on Windows: wait for it)."""
    if importlib.util.find_spec("jupyterlab") is None:
        raise UsageError(f"JupyterLab is not installed; {install()}")
    words = command(places.root(), browser=not arguments.no_browser)
    if sys.platform == "win32":
        return subprocess.call(words)
    sys.stdout.flush()
    os.execv(words[0], words)
