"""`import labkit` is cheap: it brings torch and numpy, and nothing of the notebook or of images."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "torchvision",
    "PIL",
    "matplotlib",
    "ipywidgets",
    "anywidget",
    "IPython",
    "psutil",
    "papermill",
    "nbformat",
    "pandas",
    "scipy",
    "triton",
}


PROGRAM = """
import multiprocessing, sys, threading
import torch
before = torch.get_num_threads(), torch.initial_seed()
torchs = set(sys.modules)
import labkit
print(*set(sys.modules) - torchs)
assert threading.active_count() == 1
assert multiprocessing.active_children() == []
assert (torch.get_num_threads(), torch.initial_seed()) == before
"""


@pytest.fixture(scope="module")
def imported():
    """A process that has imported labkit after torch, and printed which modules that added."""
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_labkit_adds_nothing_heavy_to_torch(imported):
    added = imported.stdout.split()
    assert "labkit.training" in added
    assert {name for name in added if name.split(".")[0] in HEAVY} == set()


def test_most_of_what_labkit_adds_is_its_own(imported):
    foreign = [name for name in imported.stdout.split() if not name.startswith("labkit")]
    assert len(foreign) <= 40, sorted(foreign)


def test_importing_prints_and_starts_nothing(imported):
    assert (imported.returncode, imported.stderr) == (0, "")
    assert len(imported.stdout.splitlines()) == 1
