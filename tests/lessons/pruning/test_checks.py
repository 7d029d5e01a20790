"""Notebook 14: its checks, and its sentences on masks and structured pruning in every outcome."""

from __future__ import annotations

import copy

import pytest
import torch
from support.common import check_is_sound

from labkit import models
from labkit.compression import prune
from labkit.facts import threads
from labkit.lessons.pruning import checks
from labkit.measure import Timing

EXAMPLE = torch.zeros(1, 1, 28, 28)


def timing(seconds, rounds=10):
    return Timing("", tuple(seconds * (1 + 0.001 * (i % 3)) for i in range(rounds)))


@pytest.fixture(autouse=True)
def one_thread():
    with threads(1):
        yield


# ---- exercises


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (
            checks.stored_ratio,
            32 / (1 + 3.2),
            {
                10: "count the bit",
                4.2 / 32: "Upside down",
                32 / 29.8: "nine tenths are zero",
                7: "too low",
                9: "too high",
                -7.6: "too low",
            },
        ),
        (
            lambda answer: checks.weights_touched(
                answer, prune.channel_graph(models.convnet(4), EXAMPLE)
            ),
            5,
            {
                2: "make the channel",
                3: "read the channel",
                9: "batch norms too",
                4: "too low",
                6: "too high",
                5.5: "too high",
            },
        ),
    ],
)
def test_checks(check, right, wrong):
    check_is_sound(check, right, wrong)


@pytest.fixture
def nets():
    """The start, what training made of it, and masks of the latter."""
    torch.manual_seed(0)
    start = models.convnet(width=4)
    trained = copy.deepcopy(start)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter += torch.randn_like(parameter)
    return start, trained, prune.magnitude_masks(trained, 0.9, together=True)


def test_ticket(nets):
    start, trained, masks = nets
    halfway = prune.masked(start, masks)
    with torch.no_grad():
        halfway.norm.bias += 1
    warm = prune.masked(start, masks)
    warm.train()(torch.rand(2, 1, 28, 28))  # moves its running statistics
    wrong = {
        start: "Take a copy",
        trained: "Take a copy",
        copy.deepcopy(start): "are not zero",
        prune.masked(start, prune.magnitude_masks(start, 0.9)): "are not zero",
        prune.masked(trained, masks): "trained weights. Rewind",
        halfway: "must be what it was before",
        warm: "running statistics",
        models.convnet(width=5): "other layers",
        models.mlp(): "other layers",
        3: "A model is wanted",
    }
    check_is_sound(
        lambda answer: checks.ticket(answer, start, trained, masks),
        prune.masked(start, masks),
        wrong,
    )


def test_a_ticket_of_a_start_that_was_masked_in_place_is_refused(nets):
    start, trained, masks = nets
    start.load_state_dict(prune.masked(start, masks).state_dict())
    said = checks.ticket(copy.deepcopy(start), start, trained, masks)
    assert said.right is False and "`start` itself is masked" in said.message
