"""Notebook 11: its checks, and its sentences for every outcome."""

from __future__ import annotations

import math

import pytest
from torchvision.models import resnet18

from labkit.distributed.buckets import MessageCost
from labkit.distributed.efficiency import StepCost
from labkit.lessons import lesson_11
from labkit.lessons.ranks_11 import CEILING

SILLY = ["many", [1], None, math.nan, math.inf, True, (1, 2), {}, 1j]
COST = StepCost(fixed=1e-3, image=1e-4, message=MessageCost(2e-4, 1e-9), gradient=310_696)


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (lesson_11.uneven_mean, 2, {3: "mean of the two means", 1: "Weigh", 8: "Weigh"}),
        (
            lesson_11.resnet_bytes,
            2 * 7 / 8 * 4 * 11_689_512,
            {4 * 11_689_512: "once", 28 * 11_689_512: "does better", 81.8: "in bytes"},
        ),
        (
            lambda answer: lesson_11.smallest_batch(answer, COST),
            COST.smallest_batch(0.9, 8),
            {1: "still below", 2**30: "a smaller power", COST.smallest_batch(0.9, 64): "64 ranks"},
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


def test_the_number_of_resnet18():
    assert sum(p.numel() for p in resnet18().parameters()) == 11_689_512


def times(**ratios):
    """A millisecond a step for the ceiling, and longer steps for the others; no noise."""
    return {CEILING: [1e-3] * 30} | {name: [1e-3 / r] * 30 for name, r in ratios.items()}


@pytest.mark.parametrize(
    ("ratio", "words"), [(0.95, "the whole interval lies above"), (0.5, "lies below")]
)
def test_ways(ratio, words):
    assert words in lesson_11.read_ways(times(ddp=ratio))


def test_ways_that_cannot_be_told():
    noisy = {CEILING: [1.0] * 30, "ddp": [1.0, 1.25] * 15}
    assert "may reach" in lesson_11.read_ways(noisy)


@pytest.mark.parametrize(
    ("naive", "words"), [(0.5, "as fast:"), (0.95, "slower here")], ids=["faster", "slower"]
)
def test_the_naive_way(naive, words):
    measured = times(naive=naive) | {"one message": [1e-3 / 0.8] * 30}
    assert words in lesson_11.read_ways(measured)


@pytest.mark.parametrize(
    ("ratio", "words"), [(0.3, "one process alone is faster"), (0.9, "it pays")]
)
def test_a_small_network(ratio, words):
    assert words in lesson_11.read_small(times(ddp=ratio), 2)


def rules(same, scaled):
    seeds = range(3)
    small = {seed: 0.80 + seed / 1000 for seed in seeds}
    others = {"same rate": same, "scaled rate": scaled}
    return [
        {"small batch": small}
        | {name: {s: small[s] + d + s / 2000 for s in seeds} for name, d in others.items()}
    ]


@pytest.mark.parametrize(
    ("same", "scaled", "words"),
    [
        (-0.3, -0.02, "The same rate is too small"),
        (-0.3, -0.3, "whatever the rate"),
        (0.0, 0.0, "can't tell"),
    ],
)
def test_rules(same, scaled, words):
    assert words in lesson_11.read_rules(rules(same, scaled))
