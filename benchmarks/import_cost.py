"""What does `import labkit` add to `import torch`?

Each import is timed in a fresh process, because a second import in one process costs nothing. The
two kinds alternate, and which goes first changes from pair to pair. There are two answers: the
difference between the processes, which is what a user sees but drowns in the seconds that torch
takes, and the time of `import labkit` alone after torch, which is much steadier.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.rows import Row
from labkit.measure.statistics import mean_interval

ROOT = Path(__file__).resolve().parent.parent
PROBE = """
import sys, time
clocks = [time.perf_counter()]
for name in sys.argv[1:]:
    __import__(name)
    clocks.append(time.perf_counter())
print([later - earlier for earlier, later in zip(clocks, clocks[1:])])
"""
ALONE, BOTH = ("torch",), ("torch", "labkit")


def run(quick: bool = False) -> list[Row]:
    """Return the seconds of `import torch` and what labkit adds to it."""
    return rows(*measure(3 if quick else 20))


def measure(
    pairs: int, timed: Callable[[tuple[str, ...]], list[float]] | None = None
) -> tuple[list[list[float]], list[list[float]]]:
    """Return the seconds of each import, pair by pair, without labkit and with it."""
    timed = timed or time_imports
    timed(BOTH)  # compiles the .pyc files and brings the libraries into memory
    alone: list[list[float]] = []
    both: list[list[float]] = []
    for pair in range(pairs):
        for names in (ALONE, BOTH) if pair % 2 else (BOTH, ALONE):
            (both if names is BOTH else alone).append(timed(names))
    return alone, both


def rows(alone: list[list[float]], both: list[list[float]]) -> list[Row]:
    """Return the rows of what `measure` measured."""
    added = [sum(b) - sum(a) for a, b in zip(alone, both, strict=True)]
    return [
        Row("import torch", mean_interval([sum(times) for times in alone]), "s"),
        Row("import labkit after torch", mean_interval([b[1] for b in both]), "s", "one process"),
        Row("both less torch alone", mean_interval(added), "s", "two processes, paired"),
    ]


def time_imports(names: tuple[str, ...]) -> list[float]:
    """Return the seconds that each of `names` takes to import, one after the other."""
    result = subprocess.run(
        [sys.executable, "-c", PROBE, *names],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return [float(seconds) for seconds in json.loads(result.stdout)]
