"""Exercises with instant checks: right, not yet (and why), and a hint for those who tried.

A check compares an answer with what is true on the reader's machine, not with a number from a
book. It says what is wrong without giving the answer away. The hint comes with a wrong answer, or
when it is asked for: one that stands there before the first try spoils the exercise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import wraps
from html import escape
from math import inf, isclose
from numbers import Real
from typing import Any

import numpy
import torch

SIGNS = {True: ("✓", "Right."), False: ("✗", "Not yet."), None: ("…", "No answer yet.")}
EDGES = {True: "#009E73", False: "#D55E00", None: "#888888"}
ASK = 'Write yours, or `answer = "hint"` for a hint.'
LARGEST = 1e300
"""Beyond it numbers are infinite, or too large to be compared."""


@dataclass(frozen=True)
class Feedback:
    """What a check says.

    Attributes:
        right: whether the answer is; None while there is none.
        message: why.
        hint: shown below, "" for none.
    """

    right: bool | None
    message: str
    hint: str = ""

    def __str__(self) -> str:
        sign, word = SIGNS[self.right]
        return f"{sign} {word} {self.message}" + (f"\nHint: {self.hint}" if self.hint else "")

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        sign, word = SIGNS[self.right]
        hint = ""
        if self.hint:
            hint = f"<details><summary>Hint</summary>{_with_code(self.hint)}</details>"
        return (
            f'<div style="border-left:4px solid {EDGES[self.right]};padding:.4em .8em;'
            f'margin:.3em 0"><b>{sign} {word}</b> {_with_code(self.message)}{hint}</div>'
        )


def _with_code(text: str) -> str:
    """Return HTML in which what stands between backticks is set as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(parts))


def exercise(*, hint: str, praise: str) -> Callable[[Callable[..., str | None]], Any]:
    """Make a check of a function that returns what is wrong with an answer, or None.

    Args:
        hint: shown, folded, with a wrong answer, or when the answer is the word "hint".
        praise: said of a right answer; what it means, not flattery.
    """

    def decorate(function: Callable[..., str | None]) -> Callable[..., Feedback]:
        @wraps(function)
        def check(answer: object, *context: object) -> Feedback:
            if answer is None or answer is ...:
                return Feedback(None, ASK)
            if isinstance(answer, str) and answer.strip().lower() == "hint":
                return Feedback(None, f"Hint: {hint}")
            problem = function(answer, *context)
            if problem is None:
                return Feedback(True, praise)
            return Feedback(False, problem, hint)

        return check

    return decorate


def real(answer: object) -> float | None:
    """Return the number that an answer is, or None if it is no single real number.

    A reader computes with what is at hand, so every kind counts: Python's, NumPy's, a tensor of no
    dimension, a Fraction, a Decimal. True and False are numbers to Python, but no answer to "how
    many".
    """
    if isinstance(answer, torch.Tensor | numpy.ndarray | numpy.generic) and answer.ndim == 0:
        answer = answer.item()
    if isinstance(answer, bool) or not isinstance(answer, Real | Decimal):
        return None
    try:
        return float(answer)
    except OverflowError:  # more than 308 digits: too large to be compared, whatever its sign
        return inf


def wrong_number(
    answer: object,
    right: float,
    tolerance: float,
    too_far: str,
    mistakes: Mapping[Any, str] | None = None,
) -> str | None:
    """Return None if `answer` is within a relative `tolerance` of `right`, else what is wrong.

    Args:
        answer: any real number, see `real`.
        right: what it should be.
        tolerance: so tight that the usual mistake lies outside; 0 for whole numbers.
        too_far: said after "is too high" or "is too low".
        mistakes: {what one gets by a usual mistake: what to say of it}. One that happens to give
            the right number on this machine is none.
    """
    number = real(answer)
    if number is None:
        return f"A number is wanted here, not {answer!r}."
    if not abs(number) < LARGEST:  # not a number is not below either
        return "A number of a sensible size is wanted here."
    if isclose(number, right, rel_tol=tolerance, abs_tol=1e-12):
        return None
    for value, said in (mistakes or {}).items():
        if isclose(number, value, rel_tol=tolerance, abs_tol=1e-12):
            return said
    return f"{number:.4g} is too {'high' if number > right else 'low'}. {too_far}"
