"""What every notebook opens and closes with: profile, facts, minutes, predictions, scoreboard."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from gettext import gettext as _
from typing import Any, TypeVar

from labkit.compare import Quantity, Race, Samples, Tradeoff, Verdict, scoreboard
from labkit.compare.guess import Fate, fate_of
from labkit.facts import Facts, machine_facts, threads
from labkit.lessons import minutes
from labkit.lessons.memory import give_back_memory
from labkit.lessons.prose import Prose, escaped
from labkit.measure.statistics import Estimate

PROFILES = ("smoke", "quick", "full")
T = TypeVar("T")


@dataclass
class Lesson:
    """A notebook under way. Made by `open_lesson`; shows itself as facts and minutes.

    Attributes:
        number, profile: such as "03" and "quick".
        facts: of this machine.
        seconds: that its cells will compute here; None while no run was stored.
        rows: what it has added to the scoreboard.
    """

    number: str
    profile: str
    facts: Facts
    seconds: float | None
    rows: list[dict[str, Any]] = field(default_factory=list)

    def pick(self, *, smoke: T, quick: T, full: T) -> T:
        """Return the value for this notebook's profile."""
        return {"smoke": smoke, "quick": quick, "full": full}[self.profile]

    def record(self, measured: Race | Tradeoff | Samples, what: str) -> str:
        """Add what was measured to the scoreboard; return the sentence that says so."""
        samples = measured if isinstance(measured, Samples) else measured.samples
        return self.record_figures(what, samples.figures())

    def record_figures(self, what: str, figures: Mapping[str, tuple[Estimate, str]]) -> str:
        """Add {name: (estimate, unit)} to the scoreboard; return the sentence that says so."""
        row = scoreboard.row(what, figures, notebook=self.number, profile=self.profile)
        file = scoreboard.append(row)
        self.rows.append(row)
        return (
            f"{len(row['figures'])} figures of “{row['what']}” are now in "
            f"{file.parent.name}/{file.name}. See them all with: labkit board"
        )

    def __repr__(self) -> str:
        return f"{self._opening}\n{self.facts}"

    def _repr_markdown_(self) -> str:
        return f"{escaped(self._opening)}\n\n> {escaped(self.facts)}"

    @property
    def _opening(self) -> str:
        words = minutes.in_words(self.seconds)
        return f"Notebook {self.number}, profile “{self.profile}”. {words}"


def open_lesson(number: str, profile: str | None) -> Lesson:
    """Open a notebook: choose the profile and say how long it will take here.

    Args:
        number: of the notebook, such as "03".
        profile: "smoke", "quick" or "full"; when empty, $LABKIT_PROFILE, else "quick".

    Raises:
        ValueError: no such profile.
    """
    chosen = profile or os.environ.get("LABKIT_PROFILE") or "quick"
    if chosen not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}, got {chosen!r}")
    with threads(1):  # the facts say with how many threads the notebook will compute
        facts = machine_facts()
    seconds = minutes.expected_seconds(number, chosen)
    give_back_memory()  # of the step that was timed, and its data
    return Lesson(number, chosen, facts, seconds)


SHARE = Quantity("share", "%", "difference", "more", "less", margin=1.0, difference_unit="points")
"""Of shares that a reader predicts: who is within a point was right."""
RATIO = Quantity("ratio", "x")
FATES: dict[Fate, str] = {
    "right": _("As good as right: the difference is below {margin}."),
    "too low": _("You were {off} too low."),
    "too high": _("You were {off} too high."),
    "can't tell": _("You may well be right: this measurement can't tell the two apart."),
    "too few": _("Measured too few times to judge your number."),
}


@dataclass(frozen=True)
class Prediction:
    """A number that the reader committed to before measuring."""

    value: float
    unit: str = "x"

    def against(self, measured: Verdict | Estimate) -> Prose:
        """Return how the prediction compares with what was measured.

        Args:
            measured: a verdict, whose margin then counts; or an estimate in the prediction's unit.
        """
        unit, verdict = self.unit, measured
        if isinstance(verdict, Estimate):
            shown = f"{verdict:.3gx}" if unit == "x" else f"{verdict:.3g}{unit}"
            verdict = Verdict("", "", RATIO if unit == "x" else SHARE, verdict)
        else:
            shown = verdict.figures
            unit = (
                "x" if verdict.quantity.kind == "ratio" else f" {verdict.quantity.difference_unit}"
            )
        said = _("You predicted {value:.3g}{unit}; measured: {shown}.")
        told = FATES[fate_of(self.value, verdict)].format(
            off=self._off(verdict), margin=verdict.quantity.margin_words
        )
        return Prose(escaped(f"{said.format(value=self.value, unit=unit, shown=shown)} {told}"))

    def _off(self, verdict: Verdict) -> str:
        """Return how far the prediction is off, whichever way."""
        found, quantity = verdict.estimate.value, verdict.quantity
        if quantity.kind == "ratio":
            return f"{abs(self.value / found - 1):.0%}"
        return f"{abs(self.value - found):.{verdict.decimals - 1}f} {quantity.difference_unit}"


def predict(value: float, unit: str = "x") -> Prediction:
    """Commit to a number before measuring it; `against` compares.

    Raises:
        TypeError: `value` is not a number.
        ValueError: it is not finite.
    """
    if isinstance(value, bool):
        raise TypeError(f"value must be a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"value must be a finite number, got {value!r}")
    return Prediction(float(value), unit)
