"""Notebook 11: its checks, and its sentences for every outcome."""

from __future__ import annotations

import pytest
from support.common import check_is_sound
from torchvision.models import resnet18

from labkit.lessons import predict
from labkit.lessons.data_parallel import checks, words
from labkit.lessons.data_parallel.measure import Span
from labkit.plan.efficiency import StepCost
from labkit.plan.messages import MessageCost

COST = StepCost(fixed=1e-3, image=1e-4, message=MessageCost(2e-4, 1e-9), gradient=310_696)


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (checks.uneven_mean, 2, {3: "mean of the two means", 1: "Weigh", 8: "Weigh"}),
        (
            checks.resnet_bytes,
            2 * 7 / 8 * 4 * 11_689_512,
            {4 * 11_689_512: "once", 28 * 11_689_512: "does better", 81.8: "in bytes"},
        ),
        (
            lambda answer: checks.smallest_batch(answer, COST),
            COST.smallest_batch(0.9, 8),
            {1: "still below", 2**30: "a smaller power", COST.smallest_batch(0.9, 64): "64 ranks"},
        ),
    ],
)
def test_checks(check, right, wrong):
    check_is_sound(check, right, wrong)


def test_the_number_of_resnet18():
    assert sum(p.numel() for p in resnet18().parameters()) == 11_689_512


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
    ("same", "scaled", "phrase"),
    [
        (-0.3, -0.06, "brings 80% of it back"),
        (-0.3, 0.1, "brings 100% of it back"),
        (-0.3, -0.3, "whatever the rate"),
        (0.0, 0.0, "can't tell"),
    ],
)
def test_rules(same, scaled, phrase):
    said = words.read_rules(rules(same, scaled), 50)
    assert phrase in said
    assert "| small batch | 80.1% | |" in said and f"| {100 * same:+.1f} (" in said


@pytest.mark.parametrize(
    ("warm", "phrase", "never"),
    [
        (0.05, "Warm-up gains 5.0 (4.9 to 5.2) points", "of only"),
        (
            -0.05,
            "worse by 5.0 points: of only 50 steps it gives 10 to lower rates",
            "Warm-up gains",
        ),
        (
            0.0,
            "can't be told here: +0.0 (-0.1 to +0.2) points (of only 50 steps",
            "nothing to save",
        ),
        (-0.001, "can't be told here: -0.1 (-0.2 to +0.1) points", "makes it worse"),
    ],
)
def test_warm_up(warm, phrase, never):
    said = words.read_rules(rules(-0.3, -0.1, warm), 50)
    assert phrase in said and never not in said
    assert ("there was nothing to save" in said) == (warm == -0.05)


def test_one_seed_tells_no_rules_apart():
    alone = [{name: {0: of[0]} for name, of in rules(-0.3, -0.1)[0].items()}]
    said = words.read_rules(alone, 50)
    assert "can't tell the rules apart" in said and "can't be told here" in said
    assert "inf" not in said


@pytest.mark.parametrize(
    ("ranks", "there", "never"),
    [
        (
            [(0.8, 310_696 * 50, 50), (0.9, 310_696 * 50, 50)],
            ["311 kB a step from each rank, as the arithmetic said", "80.0%, 90.0%", "15.5 MB"],
            "stopped",
        ),
        ([(0.8, 310_696 * 51, 50)] * 2, ["317 kB", "not what arithmetic said**"], "as the arith"),
        ([(0.8, 310_696 * 50, 50), None], ["stopped before its end"], "kB"),
        ([None, None], ["stopped before its end"], "kB"),
    ],
    ids=["as computed", "more was sent", "one was stopped", "stopped"],
)
def test_training(ranks, there, never):
    said = words.read_training(ranks, (0.85, 0, 50), 310_696)
    assert all(phrase in said for phrase in there) and never not in said
    assert ("joined batch: 85.0%" in said) == (None not in ranks)


STEP = [Span("forward", 0, 0.01), Span("backward", 0.01, 0.03), Span("optimizer", 0.031, 0.032)]


@pytest.mark.parametrize(
    ("messages", "phrase"),
    [
        # two of them at the same time, one after backward
        ([(0.02, 0.026), (0.022, 0.028), (0.03, 0.031)], "3 messages, 2 of them while"),
        ([(0.029, 0.0305)], "1 message, while this rank still was in its backward pass"),
        ([(0.03, 0.031), (0.0301, 0.0305)], "2 messages, none of them while"),
        ([(0.03, 0.031)], "1 message, when this rank was through with its backward pass"),
    ],
)
def test_timeline(messages, phrase):
    spans = [*STEP, *(Span("sending", *message) for message in messages)]
    said = words.read_timeline(spans)
    assert phrase in said and "of a step of 32.0 ms" in said
    covered = {3: 9.0, 1: 1e3 * (messages[0][1] - messages[0][0]), 2: 1.0}[len(messages)]
    assert f"on its way for {covered:.1f} ms" in said


@pytest.mark.parametrize(
    ("threads", "phrase", "ratio"),
    [
        ([1.0, 1.0], "Processes beat threads", "2.00x (2.00 to 2.00)"),
        ([0.4, 0.4], "Threads beat processes", "0.80x (0.80 to 0.80)"),
        ([0.6, 0.46], "can't tell", "1.05x (0.92 to 1.20)"),
        ([0.4, 0.54], "can't tell", "0.93x (0.80 to 1.08)"),
    ],
)
def test_scaling(threads, phrase, ratio):
    measured = {"alone": 0.5, "alone, all": 1.0, "processes": 0.5}
    scaling = {name: [seconds] * 30 for name, seconds in measured.items()}
    said = words.read_scaling(scaling | {"threads": threads * 15}, 2, predict(2.0))
    assert phrase in said and f"**Processes over threads**: {ratio}" in said
    assert sum(w in said for w in ("Processes beat", "Threads beat", "can't tell")) == 1
    assert "processes: 2.00x" in said and "for *each*: 1.00" in said
    assert "You predicted 2x" in said


def test_scaling_of_two_that_are_no_faster_than_one():
    scaling = {name: [1.0] * 30 for name in ("alone", "alone, all", "threads", "processes")}
    said = words.read_scaling(scaling, 2, predict(2.0))
    assert "processes: 1.00x" in said and "You were 100% too high" in said and "beat" not in said
