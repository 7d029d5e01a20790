"""How long a notebook will compute here: what its stored run took, at this machine's pace.

`labkit run NN --store` notes the seconds that the notebook's cells took, and how long one training
step took on that machine, in `stored_runs.json`. Here and now such a step is timed again: a machine
on which it takes twice as long will take about twice as long for the notebook. So nobody types a
number of minutes, and none grows old when a cell changes.
"""

import json
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from labkit import data, models, units
from labkit.facts import default_device, synchronize, threads
from labkit.files import atomic_path

STORED_RUNS = Path(__file__).with_name("stored_runs.json")


class StoredRun(NamedTuple):
    """What `labkit run --store` measured, both in seconds: the cells, and one reference step."""

    seconds: float
    reference_step: float


def reference_step() -> float:
    """Return the seconds of one training step of the conv net here, batch 128, on one thread.

    Without its optimizer, which takes a hundredth of the time, and a hundred MiB: torch loads its
    compiler for it.
    """
    device = default_device()
    with threads(1):
        model, seconds = models.convnet().to(device), []
        for images, labels in data.fashion(train=1280, test=10).batches(128, device=device):
            synchronize(device)
            start = perf_counter()
            model.zero_grad()
            torch.autograd.backward(F.cross_entropy(model(images), labels))
            synchronize(device)
            seconds.append(perf_counter() - start)
    return median(seconds)


def stored_run(number: str, profile: str) -> StoredRun | None:
    """Return the stored run of notebook `number` (such as "03"), or None if there is none."""
    found = _read().get(number, {}).get(profile)
    return StoredRun(**found) if found else None


def store_run(number: str, profile: str, run: StoredRun) -> None:
    """Note what a run of notebook `number` took; an older run of this profile is replaced."""
    runs = _read()
    runs.setdefault(number, {})[profile] = run._asdict()
    text = json.dumps(runs, indent=1, sort_keys=True) + "\n"
    with atomic_path(STORED_RUNS) as path:
        path.write_text(text, encoding="utf-8")


def expected_seconds(number: str, profile: str) -> float | None:
    """Return how long a notebook will compute here, or None if no run of it was stored."""
    run = stored_run(number, profile)
    return run.seconds * reference_step() / run.reference_step if run else None


def in_words(seconds: float | None) -> str:
    """Return the sentence that a notebook opens with."""
    if seconds is None:
        return "How long it computes with this profile has not been measured yet."
    return f"It computes for about {units.duration(seconds, digits=2)} on this machine."


def _read() -> dict[str, Any]:
    runs: dict[str, Any] = json.loads(STORED_RUNS.read_text(encoding="utf-8"))
    return runs
