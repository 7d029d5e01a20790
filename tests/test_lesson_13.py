"""Notebook 13: its checks, and its sentences for every outcome."""

from __future__ import annotations

import math

import pytest

from labkit.distributed.schedules import schedule
from labkit.lessons import lesson_13

SILLY = ["many", [1], None, math.nan, math.inf, True, (1, 2), {}, 1j]


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (lesson_13.gigabytes_of_seven_billion, 112, {28: "", 56: "", 84: "", 112e9: "", -112: ""}),
        (
            lesson_13.fewest_microbatches,
            27,
            {26: "More are needed", 28: "Fewer would do", 4: "42.9%", 0: "", 10**12: ""},
        ),
        (
            lesson_13.lowest_stage,
            2,
            {0: "needs 16.0 GB", 1: "needs 9.0 GB", 3: "", 4: "1, 2 and 3", -1: "1, 2 and 3"},
        ),
    ],
)
def test_checks(check, right, wrong):
    assert check(right).right is True
    assert check(None).right is None
    for answer, message in wrong.items():
        feedback = check(answer)
        assert feedback.right is False and message in feedback.message, (answer, feedback)
    for answer in SILLY:
        assert check(answer).right is not True


def layers(*ratios):
    measured = {}
    for width, ratio in zip((32, 96, 384), ratios, strict=True):
        measured |= {f"whole {width}": [1e-3] * 30, f"split {width}": [1e-3 / ratio] * 30}
    return lesson_13.layer_ratios(measured)


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ((0.3, 0.6, 1.3), "Up to width 96"),
        ((0.3, 0.6, 0.9), "pays at none"),
        ((1.3, 1.6, 1.9), "loses at none"),
        ((1.3, 0.6, 1.9), "no clear border"),
    ],
)
def test_layers(ratios, words):
    said = lesson_13.read_layers(layers(*ratios))
    assert words in said and f"{ratios[0]:.2f}x" in said


def test_timelines():
    few, many = (schedule("GPipe", 2, count) for count in (1, 8))
    said = lesson_13.read_timelines({"one": few, "eight": many}, 2)
    assert "**one**: 50% idle; the formula says 50%" in said
    assert "**eight**: 11% idle; the formula says 11%" in said
    assert "One microbatch is no pipeline" in said
    assert "too busy" in lesson_13.read_timelines({"one": few, "again": few}, 2)


def test_losses_are_compared_where_ranks_have_them():
    assert lesson_13._over_ranks([[1.0, math.nan], [3.0, 2.0]]) == [2.0, 2.0]
