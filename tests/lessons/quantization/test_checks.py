"""Notebook 15, first half: its checks, what it measures, its sentences for every outcome."""

from __future__ import annotations

import math

import pytest
import torch
from support.common import check_is_sound

from labkit.compression.quantize import grid, round_trip
from labkit.compression.quantize.affine import grid_of
from labkit.lessons.quantization import checks


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (
            checks.scale_and_zero_point,
            (4 / 255, 64),
            {
                (4 / 256, 64): "255 steps",
                (4 / 127, 64): "half of the integers",
                (4 / 255, -64): "integers from -128",
                (4 / 255, 63.75): "round it",
                (4 / 255, 0): "The zero point: 0 is too low",
                (4 / 255, 65): "too high",
                (64, 4 / 255): "The scale: 64 is too high",
                (0.01, 64): "The scale: 0.01 is too low",
                (4 / 255, None): "The zero point: A number is wanted",
                (math.nan, 64): "The scale: A number",
                64: "A pair is wanted",
                (4 / 255, 64, 0): "A pair is wanted",
            },
        ),
        (
            checks.different_integers,
            3,
            {1: "other sign", 255: "scale of its own", 256: "own", 2: "too low", 4: "too high"},
        ),
        (
            checks.resnet_megabytes,
            11_689_512 * (0.5 + 4 / 32) / 1e6,
            {
                5.84: "scales have to be stored",
                7_305_945: "megabytes (10⁶ bytes)",
                13.15: "8 bits a weight",
                58.4: "megabits",
                46.8: "too high",
                1: "too low",
            },
        ),
    ],
)
def test_checks(check, right, wrong):
    check_is_sound(check, right, wrong)


def test_what_the_exercises_take_for_right_is_what_the_library_does():
    weight = torch.tensor([[10.0, -10.0], [0.1, -0.1]])
    shared = grid_of(weight, symmetric=True)
    small = torch.linspace(-0.1, 0.1, 999)
    assert checks.different_integers(len(round_trip(small, shared).unique())).right
    made = grid(-1.0, 3.0)
    assert checks.scale_and_zero_point((made.scale.item(), made.zero_point.item())).right
    assert checks.scale_and_zero_point([4 / 255, 64]).right
    assert checks.scale_and_zero_point((0.0157, 64)).right  # three digits will do
