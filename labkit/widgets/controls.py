"""Sliders and choices of a knob: what they show, and which values they let through."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Number: TypeAlias = int | float


@dataclass(frozen=True)
class Slider:
    """A number from `low` to `high` in steps of `step`; a whole number if all three are.

    Attributes:
        label: stands before it; the argument's name when left out.
        unit: stands after the value.

    Raises:
        ValueError: `low` is not below `high`, one of them is not finite, or `step` is not above
            zero or too large for a second position.
    """

    low: Number
    high: Number
    step: Number = 1
    label: str = ""
    unit: str = ""

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"a slider's low must be below high, got {self.low} and {self.high}")
        if not self.step > 0:
            raise ValueError(f"a slider's step must be above 0, got {self.step}")
        # One position is no choice; the last digit of a step such as 0.1 is not to matter.
        if not self.step <= (self.high - self.low) * (1 + 1e-9) < math.inf:
            span = f"from {self.low} to {self.high} in steps of {self.step}"
            raise ValueError(f"a slider's ends must be finite, a step apart or more, got {span}")

    @property
    def first(self) -> Number:
        """Where it starts unless told otherwise."""
        return self.low

    def within(self, value: Number) -> Number:
        """Return the value, or the end that it lies beyond."""
        return min(max(value, self.low), self.high)

    def clean(self, value: Any) -> Number:
        """Return the allowed value nearest to `value`.

        Raises:
            ValueError: `value` is not a finite number.
        """
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"a slider needs a number, got {value!r}")
        steps = round((self.within(value) - self.low) / self.step)
        result = min(self.low + steps * self.step, self.high)
        whole = all(isinstance(number, int) for number in (self.low, self.high, self.step))
        return int(result) if whole else float(f"{result:.12g}")

    def describe(self, name: str) -> dict[str, Any]:
        """Return what the browser needs to build it."""
        span = {"low": self.low, "high": self.high, "step": self.step}
        return {
            "kind": "slider",
            "name": name,
            "label": self.label or _words(name),
            "unit": self.unit,
            **span,
        }

    def show(self, value: Any) -> str:
        """Return the value as text, with its unit."""
        return f"{value:g} {self.unit}".strip()


@dataclass(frozen=True)
class Choice:
    """One of several options.

    Attributes:
        options: the values; the browser shows their text.
        label: stands before it; the argument's name when left out.

    Raises:
        ValueError: fewer than two options, two of one text, or one text in place of options.
    """

    options: Sequence[Any]
    label: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.options, str):  # a text is a sequence as well: of its letters
            raise ValueError(f"options must be a list such as [{self.options!r}, ...], got a text")
        texts = [str(option) for option in self.options]
        if len(texts) < 2 or len(set(texts)) < len(texts):
            raise ValueError(f"a choice needs two or more different options, got {texts}")

    @property
    def first(self) -> Any:
        """Where it starts unless told otherwise."""
        return self.options[0]

    def clean(self, value: Any) -> Any:
        """Return the option whose text `value` has.

        Raises:
            ValueError: there is none.
        """
        for option in self.options:
            if str(option) == str(value):
                return option
        raise ValueError(f"no option {value!r}; there are {', '.join(map(str, self.options))}")

    def describe(self, name: str) -> dict[str, Any]:
        """Return what the browser needs to build it."""
        options = [str(option) for option in self.options]
        return {
            "kind": "choice",
            "name": name,
            "label": self.label or _words(name),
            "options": options,
        }

    def show(self, value: Any) -> str:
        """Return the option as text."""
        return str(value)


Control: TypeAlias = Slider | Choice


def as_control(name: str, given: object) -> Control:
    """Return a control: itself, a Slider from (low, high, step), a Choice from a list.

    Raises:
        TypeError: `given` is none of these.
    """
    if isinstance(given, Slider | Choice):
        return given
    if isinstance(given, tuple) and len(given) in (2, 3):
        return Slider(*given)
    if isinstance(given, list):
        return Choice(given)
    raise TypeError(
        f"control {name!r} must be (low, high, step), a list of options, a Slider or a Choice, "
        f"got {given!r}"
    )


def _words(name: str) -> str:
    return name.replace("_", " ")
