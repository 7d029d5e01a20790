"""Notebook 12: its checks, and its sentences for every outcome."""

from __future__ import annotations

import pytest
import torch
from support.common import check_is_sound
from support.verdicts import each_call

from labkit.compare import STEP_TIME
from labkit.lessons import Sentences, read, read_all
from labkit.lessons.gradient_aggregation import checks, words
from labkit.lessons.gradient_aggregation.small_training import CORRECT
from labkit.plan.messages import MessageCost

COST = MessageCost(latency=2e-4, per_byte=1e-9)


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (
            checks.resnet_megabytes,
            2 * 3 / 4 * 4 * 11_689_512 / 1e6,
            {
                17.5: "takes 4 bytes",
                70_137_072: "megabytes are wanted",
                280.5: "all ranks send together",
                66.89: "Those are MiB",
                35.07: "first half of the ring",
                46.76: "too low",
                69: "too low",
                71: "too high",
                0: "too low",
            },
        ),
        (
            lambda answer: checks.break_even_kib(answer, COST),
            2e-4 / 1e-9 / 1024,
            {
                200_000: "KiB are wanted",
                1024 * 1e-9 / 2e-4: "Upside down",
                100: "too low",
                1000: "too high",
                -195.3: "too low",
            },
        ),
        (
            checks.low_rank_ratio,
            18_432 / 704,
            {
                704 / 18_432: "Upside down",
                18_432 / 352: "rank 1",
                704: "So many numbers travel",
                20: "too low",
                30: "too high",
            },
        ),
        (
            checks.exchanges,
            40,
            {20: "forward pass alone", 41: "too high", 39: "too low", 1: "too low", 0: "too low"},
        ),
    ],
)
def test_checks(check, right, wrong):
    check_is_sound(check, right, wrong)


def test_a_whole_number_will_do_for_a_ratio():
    assert checks.low_rank_ratio(26).right


def test_the_numbers_of_resnet18():
    from torchvision.models import resnet18

    model = resnet18()
    assert 4 * sum(p.numel() for p in model.parameters()) == checks.RESNET18_BYTES
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == checks.NORMS_OF_RESNET18


ALL = {name: told for name, told in vars(words).items() if isinstance(told, Sentences)}
LISTED = ("COMPRESSION", "PERIODS")


@pytest.mark.parametrize("name", ALL)
def test_each_call_has_a_sentence_of_its_own(name):
    said = {}
    for quantity in (STEP_TIME, CORRECT):
        for call, verdict in each_call(quantity).items():
            if name in LISTED:
                said[call] = read_all({"one": verdict}, ALL[name])
            else:
                said[call] = read(verdict, ALL[name])
            assert "{" not in said[call] and "inf" not in said[call]
    assert len(set(said.values())) == 5
