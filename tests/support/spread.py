"""How `pytest -n 2` deals the tests out to its processes.

What shares something that is slow to make stays in one process: the tests of a file share its
fixtures, all browser tests share one JupyterLab, the cells of a notebook share their kernel. Whole
notebooks share nothing, so each is dealt out alone. What takes long is dealt out first: whatever
comes last should be short, so that no process waits long for the other at the end.
"""

from typing import Any

from xdist.scheduler import LoadScopeScheduling

TOGETHER = ("tests/browser/",)
APART = ("tests/project/test_notebooks.py", "tests/cli/test_run.py")
FIRST = ("tests/browser/", "tests/project/", "notebooks/", "tests/cli/", "tests/distributed/")


def share(nodeid: str) -> str:
    """Return the name of the share of a test; a share is run in one process, in order."""
    if nodeid.startswith(APART):
        return nodeid
    for folder in TOGETHER:
        if nodeid.startswith(folder):
            return folder
    return nodeid.partition("::")[0]


def rank(nodeid: str) -> int:
    """Return when a test is dealt out: those of rank 0 come first."""
    places = (place for place, start in enumerate(FIRST) if nodeid.startswith(start))
    return next(places, len(FIRST))


class Shares(LoadScopeScheduling):  # type: ignore[misc]
    """Deal out share after share, in the order in which they were collected."""

    def __init__(self, config: Any, log: Any = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return share(nodeid)
