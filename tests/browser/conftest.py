"""One JupyterLab server for the whole run, and one browser for each module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright
from support.lab_server import LabServer, start_browser


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[LabServer]:
    started = LabServer(tmp_path_factory.mktemp("lab"), root)
    try:
        started.wait_until_ready()
        yield started
    finally:
        started.close()


@pytest.fixture(scope="module")  # not the session: playwright's event loop would disturb asyncio
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = start_browser(playwright)
        try:
            yield started
        finally:
            started.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go, for a person to look at."""
    return tmp_path_factory.mktemp("screenshots")
