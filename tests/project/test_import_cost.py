"""`import labkit` is cheap: it brings torch and numpy, and nothing of the notebook or of images."""

from __future__ import annotations

import subprocess
import sys

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


def modules_after(statement):
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return set(result.stdout.split())


def test_labkit_adds_nothing_heavy_to_torch():
    added = modules_after("import labkit") - modules_after("import torch")
    assert {name for name in added if name.split(".")[0] in HEAVY} == set()


def test_most_of_what_labkit_adds_is_its_own():
    added = modules_after("import labkit") - modules_after("import torch")
    foreign = {name for name in added if not name.startswith("labkit")}
    assert len(foreign) <= 40, sorted(foreign)


def test_importing_prints_and_starts_nothing():
    code = (
        "import threading, multiprocessing, torch\n"
        "before = torch.get_num_threads(), torch.initial_seed()\n"
        "import labkit\n"
        "assert threading.active_count() == 1\n"
        "assert multiprocessing.active_children() == []\n"
        "assert (torch.get_num_threads(), torch.initial_seed()) == before\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert result.stdout + result.stderr == ""
