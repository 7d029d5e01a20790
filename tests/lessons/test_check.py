"""Checks of exercises: which answers count as numbers, what is said of them, and when a hint."""

from decimal import Decimal
from fractions import Fraction

import numpy
import pytest
import torch

from labkit.lessons import exercise
from labkit.lessons.check import real, wrong_number


@exercise(hint="Think.", praise="Because.")
def three(answer: object) -> str | None:
    return wrong_number(answer, 3, 0.01, "Count again.", {9: "That is its square.", 3: "Never."})


@pytest.mark.parametrize(
    ("answer", "right", "said"),
    [
        (None, None, "No answer yet."),
        (..., None, "No answer yet."),
        (" Hint", None, "Hint: Think."),
        (3, True, "Right. Because."),
        (3.02, True, "Right."),
        (4, False, "4 is too high. Count again.\nHint: Think."),
        (-3, False, "-3 is too low."),
        (9, False, "That is its square.\nHint: Think."),
        ("3", False, "A number is wanted here, not '3'."),
        (True, False, "A number is wanted"),
        ([3], False, "A number is wanted"),
        (float("nan"), False, "of a sensible size"),
        (float("-inf"), False, "of a sensible size"),
        (-(10**400), False, "of a sensible size"),
    ],
)
def test_feedback(answer: object, right: bool | None, said: str) -> None:
    feedback = three(answer)
    assert feedback.right is right
    assert said in str(feedback) == repr(feedback)


def test_no_hint_is_seen_before_the_first_try() -> None:
    for page in (str, lambda said: said._repr_html_()):
        assert "Think" not in page(three(None)) and "hint" in page(three(None))
        assert "Think" not in page(three(3)) and "Think" in page(three(4))
    assert "<details><summary>Hint</summary>Think.</details>" in three(4)._repr_html_()
    assert "<code>answer = &quot;hint&quot;</code>" in three(None)._repr_html_()


@pytest.mark.parametrize(
    "number",
    [
        *(3, 3.0, Fraction(3), Decimal(3), numpy.int64(3), numpy.float16(3), numpy.array(3.0)),
        *(torch.tensor(3), torch.tensor(3.0), torch.tensor(3.0, requires_grad=True)),
        *(torch.tensor(3.0, dtype=torch.bfloat16), numpy.uint8(3), numpy.float64(3)),
    ],
    ids=lambda number: f"{type(number).__name__} {getattr(number, 'dtype', '')}",
)
def test_every_kind_of_real_number_counts(number: object) -> None:
    assert real(number) == 3.0 and three(number).right


@pytest.mark.parametrize(
    "other",
    [
        *(True, numpy.bool_(True), torch.tensor(True), 3 + 0j, numpy.complex64(3), "3", None, len),
        *([3], (3,), torch.tensor([3.0]), numpy.array([3]), torch.zeros(2)),
    ],
    ids=repr,
)
def test_what_is_no_single_real_number_does_not(other: object) -> None:
    assert real(other) is None
    assert other is None or three(other).right is False
