"""Notebook 11: its checks, and its sentences for every outcome."""

from __future__ import annotations

import pytest
from tests_support import check_is_sound
from torchvision.models import resnet18

from labkit.distributed.buckets import MessageCost
from labkit.distributed.efficiency import StepCost
from labkit.lessons import lesson_11, predict
from labkit.lessons.ranks_11 import CEILING, Span

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
    check_is_sound(check, right, wrong)


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


def rules(same, scaled, warm=0.0):
    """Points away from the small batch, with some noise over seeds that is all rules' own."""
    small = {seed: 0.80 + seed / 1000 for seed in range(3)}
    shifts = {"same rate": same, "scaled rate": scaled, "scaled rate, warm-up": scaled + warm}
    noise = {name: number / 2000 for number, name in enumerate(shifts, start=1)}
    return [
        {"small batch": small}
        | {name: {s: small[s] + d + s * noise[name] for s in small} for name, d in shifts.items()}
    ]


@pytest.mark.parametrize(
    ("same", "scaled", "words"),
    [
        (-0.3, -0.06, "brings 80% of it back"),
        (-0.3, 0.1, "brings 100% of it back"),
        (-0.3, -0.3, "whatever the rate"),
        (0.0, 0.0, "can't tell"),
    ],
)
def test_rules(same, scaled, words):
    assert words in lesson_11.read_rules(rules(same, scaled))


@pytest.mark.parametrize(
    ("warm", "words"),
    [(0.05, "Warm-up gains"), (-0.05, "makes it worse by 5.0 points"), (0.0, "can't be told")],
)
def test_warm_up(warm, words):
    assert words in lesson_11.read_rules(rules(-0.3, -0.1, warm))


def cost_with(latency):
    return StepCost(0.0, 1e-4, MessageCost(latency, 1e-12), 310_696)


@pytest.mark.parametrize(
    ("latency", "words"),
    [(1e-6, "100% computing"), (1e-6, "waiting for whoever is late"), (1e-2, "was busier")],
)
def test_what_the_four_numbers_leave_out(latency, words):
    assert words in lesson_11.read_cost(cost_with(latency), times(**{"one message": 0.9}))


def test_the_four_numbers_may_tell_all():
    noisy = {CEILING: [1.0] * 30, "one message": [1.0, 1.02] * 15}
    assert "all that is seen" in lesson_11.read_cost(cost_with(1e-4), noisy)


def test_training():
    ranks = [(0.8, 310_696 * 50, 50), (0.9, 310_696 * 50, 50)]
    said = lesson_11.read_training(ranks, (0.85, 0, 50), 310_696)
    assert "311 kB a step from each rank, as the arithmetic said" in said
    assert "80.0%, 90.0%" in said and "joined batch: 85.0%" in said
    ranks[0] = (0.8, 310_696 * 51, 50)
    assert "not what arithmetic said" in lesson_11.read_training(ranks, (0.85, 0, 50), 310_696)
    assert "stopped before its end" in lesson_11.read_training([ranks[0], None], (0.85, 0, 50), 1)


def test_timeline():
    spans = [
        Span("forward", 0, 0.01),
        Span("backward", 0.01, 0.03),
        Span("sending", 0.02, 0.026),
        Span("sending", 0.022, 0.028),  # at the same time as the one before
        Span("sending", 0.03, 0.031),
        Span("optimizer", 0.031, 0.032),
    ]
    said = lesson_11.read_timeline(spans)
    assert "in 3 messages, 2 of them while" in said
    assert "for 9.0 ms of a step of 32.0 ms" in said


@pytest.mark.parametrize(
    ("threads", "words"),
    [(1.0, "Processes beat threads"), (0.4, "Threads beat processes"), (0.5, "can't tell")],
)
def test_scaling(threads, words):
    measured = {"alone": 0.5, "alone, all": 1.0, "threads": threads, "processes": 0.5}
    noise = [1.0, 1.01] * 15 if threads == 0.5 else [1.0] * 30
    scaling = {
        n: [t * x for x in (noise if n == "threads" else [1.0] * 30)] for n, t in measured.items()
    }
    said = lesson_11.read_scaling(scaling, 2, predict(2.0))
    assert words in said and "processes: 2.00x" in said
    assert "for *each*: 1.00" in said and "You predicted 2x" in said
