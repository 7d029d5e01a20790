"""Notebook 14: its sentences on what is dead, sensitive, too much and worth its time."""

from __future__ import annotations

import pytest
import torch
from support.common import tiny_data, tiny_model

from labkit.compare import Tradeoff
from labkit.compression.prune import Finding, Lossless, Sensitivity
from labkit.facts import threads
from labkit.lessons import tradeoffs
from labkit.lessons.pruning import outcomes


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        (0.0, "no change of accuracy"),
        (0.0004, "no change of accuracy"),
        (0.012, "1.2 points less accuracy"),
        (-0.03, "3.0 points more accuracy"),
    ],
)
def test_points(lost, words):
    assert outcomes.points_lost(lost) == words


def lossless(*findings):
    return Lossless(torch.nn.Identity(), findings)


DEAD = Finding("stem", 3, 8, "always zero")
STAYS = Finding("stem", 2, 8, "stays: constant, but what reads it pads with zeros")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (lossless(), "**No channel provably does nothing**"),
        (lossless(STAYS), "**No channel provably does nothing**"),
        (lossless(DEAD, STAYS), "**3 channels provably do nothing**"),
    ],
)
def test_healthy(found, words):
    said = outcomes.read_healthy(found, ["norm", "norm2"], 2e-6)
    assert words in said and said.startswith("2 batch norms") and "2e-06" in said


@pytest.mark.parametrize(
    ("found", "words", "absent"),
    [
        (lossless(), "**Still no channel can go**", "without any loss"),
        (lossless(DEAD), "**3 channels go without any loss**: the outputs move by 1e-06", "Still"),
    ],
)
def test_slim(found, words, absent):
    said = outcomes.read_slim(found, 1e-6, 0.9, 0.88)
    assert words in said and absent not in said and "2.0 points less accuracy" in said


def scanned(**values):
    return [
        Sensitivity(group, ratio, 1, 4, value, 0.9)
        for group, of_group in values.items()
        for ratio, value in zip((0.25, 0.75), of_group, strict=False)
    ]


def test_sensitivity_names_worst_and_best_at_the_highest_ratio():
    said = outcomes.read_sensitivity(scanned(a=(0.9, 0.5), b=(0.4, 0.85), c=(0.9, 0.7)))
    assert "With 75% of its channels gone, **a** costs 40 points and **b** 5." in said


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([], "Nothing was measured yet"),
        (scanned(a=(0.9, 0.5)), "Stopped too early"),
        (scanned(a=(0.9,)), "Stopped too early"),
        (scanned(a=(0.9, 0.5), b=(0.8,)), "Stopped too early"),
    ],
)
def test_sensitivity_stopped_early(found, words):
    assert words in outcomes.read_sensitivity(found)


def ends(one, steps, new):
    return {"in one go": one, "step by step": steps, "from new weights": new}


@pytest.mark.parametrize(
    ("accuracies", "at_once", "there"),
    [
        (ends(0.7, 0.8, 0.6), 0.1, ["no better than guessing", "is better: 80.0%", "pruning paid"]),
        (ends(0.8, 0.7, 0.9), 0.5, ["far from what it was", "worse here: 70.0%", "only its shape"]),
        (ends(0.8, 0.802, 0.8), 0.1, ["no better here: 80.2%", "what pruning found was a size"]),
        (ends(0.8, 0.7, 0.75), 0.1, ["worse here", "pruning paid"]),
    ],
)
def test_again(accuracies, at_once, there):
    said = outcomes.read_again(accuracies, at_once, chance=0.1)
    assert all(words in said for words in there), said
    assert f"leaves {at_once:.1%}" in said and f"{accuracies['from new weights']:.1%}" in said


def test_race():
    with threads(1):
        data = tiny_data()
        tests = list(data.test_batches(20))
        nets = {"whole": tiny_model(), "half": tiny_model()}
        tradeoff = Tradeoff(nets, test=tests, example=tests[0][0], rounds=3)
        assert "Nothing was measured yet" in tradeoffs.read_tradeoff(tradeoff)
        for _ in tradeoff:
            pass
    said = tradeoffs.read_tradeoff(tradeoff)
    assert f"- {tradeoff.reading('half', allowed=0.5)}" in said
    assert f"**{'; '.join(tradeoff.front)}**" in said and "whole over" not in said


@pytest.mark.parametrize(
    ("rewound", "random", "words"),
    [
        (0.8, 0.7, "**the choice of weights mattered**"),
        (0.7, 0.8, "**the random mask wins here**"),
        (0.8, 0.803, "**no difference here**"),
    ],
)
def test_ticket(rewound, random, words):
    said = outcomes.read_ticket(rewound, random, 0.9)
    assert words in said and "all weights 90.0%" in said and said.count("**") == 2
