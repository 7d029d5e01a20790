"""Fair comparison: races, tradeoffs, what may be said of them, and the scoreboard."""

from labkit.compare import (
    scoreboard,
    watched,  # noqa: F401  (so that live() knows a Race, and a Tradeoff)
)
from labkit.compare.graded import graded
from labkit.compare.quantity import (
    FORWARD_TIME,
    LATENCY,
    PEAK_MEMORY,
    SIZE,
    STEP_TIME,
    TIME_TO_TARGET,
    Quantity,
)
from labkit.compare.race import Race
from labkit.compare.samples import Samples
from labkit.compare.step_rooflines import step_standings
from labkit.compare.tradeoff import Tradeoff
from labkit.compare.verdict import Verdict

__all__ = [
    "FORWARD_TIME",
    "LATENCY",
    "PEAK_MEMORY",
    "SIZE",
    "STEP_TIME",
    "TIME_TO_TARGET",
    "Quantity",
    "Race",
    "Samples",
    "Tradeoff",
    "Verdict",
    "graded",
    "scoreboard",
    "step_standings",
]
