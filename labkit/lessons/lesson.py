"""What every notebook opens and closes with: profile, facts, minutes, predictions, scoreboard."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from statistics import median
from time import perf_counter
from typing import Any, TypeVar

import torch
from torch.nn import functional as F

from labkit import data, models, units
from labkit.compare import Race, Tradeoff, scoreboard
from labkit.facts import Facts, default_device, machine_facts, synchronize, threads
from labkit.lessons.memory import give_back_memory
from labkit.lessons.prose import Prose
from labkit.measure.statistics import Estimate

PROFILES = ("smoke", "quick", "full")
T = TypeVar("T")


@dataclass
class Lesson:
    """A notebook under way. Made by `open_lesson`; shows itself as facts and minutes."""

    number: str
    profile: str
    facts: Facts
    minutes: float
    rows: list[dict[str, Any]] = field(default_factory=list)

    def pick(self, *, smoke: T, quick: T, full: T) -> T:
        """Return the value for this notebook's profile."""
        return {"smoke": smoke, "quick": quick, "full": full}[self.profile]

    def record(self, race: Race | Tradeoff, what: str) -> str:
        """Add the race's figures to the scoreboard; return the sentence that says so."""
        return self._append(race.row(what, notebook=self.number, profile=self.profile))

    def record_figures(self, what: str, figures: Mapping[str, tuple[Estimate, str]]) -> str:
        """Add {name: (estimate, unit)} to the scoreboard; return the sentence that says so."""
        row = scoreboard.row(what, figures, notebook=self.number, profile=self.profile)
        return self._append(row)

    def _append(self, row: dict[str, Any]) -> str:
        file = scoreboard.append(row)
        self.rows.append(row)
        return (
            f"{len(row['figures'])} figures of “{row['what']}” are now in "
            f"{file.parent.name}/{file.name}. See them all with: labkit board"
        )

    def __repr__(self) -> str:
        time = units.duration(60 * self.minutes, digits=2)
        return (
            f"Notebook {self.number}, profile “{self.profile}”. "
            f"It computes for about {time} on this machine:\n{self.facts}"
        )

    def _repr_markdown_(self) -> str:
        first, facts = repr(self).split("\n", 1)
        return f"{first}\n\n> {facts}"


def open_lesson(number: str, profile: str | None, *, steps: Mapping[str, int]) -> Lesson:
    """Open a notebook: choose the profile and say how long it will take here.

    Args:
        number: of the notebook, such as "03".
        profile: "smoke", "quick" or "full"; when empty, $LABKIT_PROFILE, else "quick".
        steps: {profile: the notebook's computing in training steps of the small conv net}. A few
            such steps are timed now, so the minutes are those of this machine at this hour.

    Raises:
        ValueError: no such profile.
    """
    chosen = profile or os.environ.get("LABKIT_PROFILE") or "quick"
    if chosen not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}, got {chosen!r}")
    with threads(1):
        facts = machine_facts()
        minutes = steps[chosen] * _reference_step() / 60
    give_back_memory()  # of those steps and their data
    return Lesson(number, chosen, facts, minutes)


def _reference_step() -> float:
    """Return the seconds of one training step of the conv net, batch 128.

    Without its optimizer, which takes a hundredth of the time, and a hundred MiB: torch loads its
    compiler for it.
    """
    device = default_device()
    model, seconds = models.convnet().to(device), []
    for images, labels in data.fashion(train=1280, test=10).batches(128, device=device):
        synchronize(device)
        start = perf_counter()
        model.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(images), labels))
        synchronize(device)
        seconds.append(perf_counter() - start)
    return median(seconds)


@dataclass(frozen=True)
class Prediction:
    """A number that the reader committed to before measuring."""

    value: float
    unit: str = "x"

    def against(self, measured: Estimate) -> Prose:
        """Return how the prediction compares with what was measured."""
        said = (
            f"You predicted {self.value:.3g}{self.unit}; measured: {measured.value:.3g}{self.unit}"
        )
        if isfinite(measured.high):
            said += f" (95 % {measured.low:.3g} to {measured.high:.3g})"
        if measured.low <= self.value <= measured.high and isfinite(measured.high):
            return Prose(f"{said}. Your number lies within the interval.")
        if self.unit.strip() == "%":  # such a figure may well be 0
            off = f"{abs(self.value - measured.value):.0f} points"
        else:
            off = f"{abs(self.value / measured.value - 1):.0%}"
        side = "high" if self.value > measured.value else "low"
        return Prose(f"{said}. You were {off} too {side}.")


def predict(value: float, unit: str = "x") -> Prediction:
    """Commit to a number before measuring it; `against` compares.

    Raises:
        TypeError: `value` is not a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"value must be a number, got {value!r}")
    return Prediction(float(value), unit)
