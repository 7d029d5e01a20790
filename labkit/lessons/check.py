"""Exercises with instant checks: right, not yet (and why), or a hint while there is no answer.

A check compares an answer with what is true on the reader's machine, not with a number from a
book. It says what is wrong without giving the answer away.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from html import escape
from math import isclose
from typing import Any

SIGNS = {True: ("✓", "Right."), False: ("✗", "Not yet."), None: ("…", "No answer yet.")}
EDGES = {True: "#009E73", False: "#D55E00", None: "#888888"}


@dataclass(frozen=True)
class Feedback:
    """What a check says. `right` is None while there is no answer."""

    right: bool | None
    message: str

    def __str__(self) -> str:
        sign, word = SIGNS[self.right]
        return f"{sign} {word} {self.message}"

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        sign, word = SIGNS[self.right]
        return (
            f'<div style="border-left:4px solid {EDGES[self.right]};padding:.4em .8em;'
            f'margin:.3em 0"><b>{sign} {word}</b> {_with_code(self.message)}</div>'
        )


def _with_code(text: str) -> str:
    """Return HTML in which what stands between backticks is set as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(parts))


def exercise(*, hint: str, praise: str) -> Callable[[Callable[..., str | None]], Any]:
    """Make a check of a function that returns what is wrong with an answer, or None.

    Args:
        hint: shown while the answer is None (or the `...` of the empty cell).
        praise: said of a right answer; what it means, not flattery.
    """

    def decorate(function: Callable[..., str | None]) -> Callable[..., Feedback]:
        @wraps(function)
        def check(answer: object, *context: object) -> Feedback:
            if answer is None or answer is ...:
                return Feedback(None, f"Hint: {hint}")
            problem = function(answer, *context)
            return Feedback(True, praise) if problem is None else Feedback(False, problem)

        return check

    return decorate


def wrong_number(answer: object, right: float, tolerance: float, too_far: str) -> str | None:
    """Return None if `answer` is within a relative `tolerance` of `right`, else what is wrong."""
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        return f"A number is wanted here, not {answer!r}."
    if not abs(answer) < 1e300:  # infinite, not a number, or too large to be compared
        return "A number of a sensible size is wanted here."
    if isclose(answer, right, rel_tol=tolerance, abs_tol=1e-12):
        return None
    return f"{answer:.4g} is too {'high' if answer > right else 'low'}. {too_far}"
