"""Notebook 15, first half: its checks, what it measures, its sentences for every outcome."""

from __future__ import annotations

import math

import pytest
import torch
from support.common import check_is_sound, tiny_data
from torch import nn

from labkit import models
from labkit.compression.quantize import Int8Limits, grid, round_trip
from labkit.compression.quantize.affine import grid_of
from labkit.compression.quantize.layer_noise import LayerError
from labkit.lessons import predict
from labkit.lessons.quantization import checks, measure, words
from labkit.lessons.quantization.measure import Quality
from labkit.measure import Estimate, Timing


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


# ---- grids


def test_more_bits_and_scales_for_each_channel_make_less_noise():
    torch.manual_seed(0)
    weight = torch.randn(8, 64) * torch.logspace(-1, 1, 8)[:, None]
    rows = words.grids_table(weight).rows
    eight, four = ([float(row[column].removesuffix(" dB")) for row in rows] for column in (1, 2))
    assert all(20 < e - f < 28 for e, f in zip(eight, four, strict=True))  # 6 dB a bit
    assert four[2] > four[0] and four[3] > four[1]
    assert "symmetric, per channel" in rows[3][0]


@pytest.mark.parametrize(
    ("widths", "phrase"), [([1.0, 1.0], "next to nothing"), ([1.0, 0.01], "bits** more")]
)
def test_what_a_scale_a_channel_is_worth(widths, phrase):
    line = torch.linspace(-1, 1, 101)
    said = words.read_grids(torch.stack([width * line for width in widths]))
    assert phrase in said and "at 4 bits" in said


# ---- quality


class Shifted(nn.Module):
    """Logits that are the inputs, with some classes' order changed."""

    def __init__(self, shift):
        super().__init__()
        self.shift = torch.tensor(shift)

    def forward(self, inputs):
        return inputs + self.shift


def test_qualities_are_paired_with_the_first_model():
    inputs, labels = torch.eye(2).repeat(50, 1), torch.tensor([0, 1]).repeat(50)
    test = [(inputs[:60], labels[:60]), (inputs[60:], labels[60:])]
    made = {"good": Shifted([0.0, 0.0]), "bad": Shifted([2.0, 0.0]), "same": Shifted([0.1, 0.1])}
    found = measure.qualities(made, test)
    assert [round(q.accuracy) for q in found.values()] == [100, 50, 100]
    assert found["good"].error == 0 and found["bad"].error == pytest.approx(200)
    assert found["bad"].lost.value == 50 and found["bad"].lost.low > 0
    assert found["same"].lost.value == 0 and found["same"].lost.low < 0 < found["same"].lost.high
    table = words.quality_table(found)
    assert table.rows[0] == ("good", "100.00 %", "", "") and "200.0 %" in table.rows[1]


def quality(accuracy=90.0, lost=0.0, width=0.3, error=1.0):
    return Quality(accuracy, Estimate(lost, lost - width, lost + width, 2000), error)


@pytest.mark.parametrize(
    ("one", "two", "there", "absent"),
    [
        (
            quality(error=1),
            quality(error=1.2),
            ["**a**, 1.0 %", "chance", "room for all"],
            ["lose"],
        ),
        (quality(error=9), quality(error=2), ["**b**, 2.0 %", "9.0 %", "chance"], ["room"]),
        (quality(lost=2), quality(), ["test images a loses 2.00 (1.70 to 2.30)"], ["chance"]),
        (quality(lost=2), quality(lost=3), ["a loses 2.00", "b loses 3.00"], ["chance"]),
    ],
)
def test_static(one, two, there, absent):
    said = words.read_static({"fp32": quality(error=0), "a": one, "b": two})
    assert all(phrase in said for phrase in there), said
    assert not any(phrase in said for phrase in absent), said


# ---- the clipping range


def test_clip_sweep():
    torch.manual_seed(0)
    model, images = models.convnet(4).eval(), tiny_data(40)
    batch = next(iter(images.test_batches(40)))
    before = model(batch[0])
    sweep = measure.clip_sweep(model, batch, [8, 3], [5, 100])
    assert torch.equal(model(batch[0]), before)
    assert not any(module._forward_hooks for module in model.modules())
    for what in (measure.WEIGHTS, measure.ACTIVATIONS):
        _, fine = sweep[what, 8]
        _, coarse = sweep[what, 3]
        assert fine[100][0] < coarse[100][0] < coarse[5][0]
        assert 0.1 < fine[100][0] < 2
    values, outcomes = sweep[measure.WEIGHTS, 3]
    assert torch.equal(values, model.stem.weight.detach().flatten())
    steps = measure.clipped_grid(model.stem.weight.detach(), 3, 100)
    changed = models.convnet(4)
    changed.load_state_dict(model.state_dict())
    with torch.no_grad():
        changed.stem.weight.copy_(round_trip(model.stem.weight, steps))
    right = (changed.eval()(batch[0]).argmax(1) == batch[1]).float().mean()
    assert outcomes[100][1] == pytest.approx(100 * float(right))


def test_clipped_grid_covers_the_share():
    values = torch.tensor([-1.0, 4.0])
    both, one = measure.clipped_grid(values, 8, 50), measure.clipped_grid(values.abs(), 8, 50)
    ends = torch.tensor([-9.0, 9.0])
    assert round_trip(ends, both)[1] == pytest.approx(2) and both.zero_point == 0
    assert round_trip(ends, one).tolist() == pytest.approx([0, 2])


# ---- speed


def timing(ratio, rounds=10):
    return {"fp32": Timing("fp32", (ratio,) * rounds), "int8": Timing("int8", (1.0,) * rounds)}


LIMITS = Int8Limits(0.06, 0.01, "amx-int8", 12.0, moving=False)


@pytest.mark.parametrize(
    ("ratio", "rounds", "limits", "there", "absent"),
    [
        (3, 10, LIMITS, ["3.00x faster", "(amx-int8)", "6.0x at best", "less"], ["loss"]),
        (5.5, 10, LIMITS, ["Measured is about that"], ["less", "more"]),
        (9, 10, LIMITS, ["Measured is more", "folds"], ["less"]),
        (
            1,
            10,
            LIMITS,
            ["Measured is no difference"],
            ["faster", "loss"],
        ),
        (0.5, 10, LIMITS, ["slower here", "Measured is a loss"], ["faster"]),
        (3, 3, LIMITS, ["too few"], ["Measured is"]),
        (0.5, 10, Int8Limits(1, 1, "", 1, True), ["no int8 instructions", "slower"], ["at best"]),
        (3, 10, Int8Limits(6, 2, "avx-vnni", 4, True), ["moving bytes", "3.0x at best"], []),
    ],
)
def test_speed(ratio, rounds, limits, there, absent):
    said = words.read_speed(timing(ratio, rounds), limits, predict(4))
    assert all(phrase in said for phrase in [*there, "You predicted 4x"]), said
    assert not any(phrase in said for phrase in absent), said


@pytest.mark.parametrize(
    ("stored", "equal", "phrase"),
    [
        (1100, True, ["stored **1,000** (to the byte)", "**3.64 times", "bit for bit"]),
        (1110, True, ["+10 bytes off"]),
        (1100, False, ["**other outputs"]),
    ],
)
def test_file(stored, equal, phrase):
    said = words.read_file(1000, stored, 100, 4000, equal)
    assert all(word in said for word in phrase), said
    assert "With 100 bytes of names" in said


@pytest.mark.parametrize(
    ("gain", "kept", "phrase"),
    [
        (0.5, 1.0, "A gain that costs no time"),
        (0.5, 0.5, "how much accuracy is at stake"),
        (0.0, 0.5, "Not worth it"),
        (-0.5, 1.0, "Not worth it"),
    ],
)
def test_layers(gain, kept, phrase):
    errors = [LayerError("a", 45.0, 30.0, 29.0), LayerError("b", 40.0, 60.0, 39.0)]
    qualities = {"fp32": quality(), "int8": quality(error=2), "kept": quality(error=2 - gain)}
    seconds = {"fp32": 5.0, "int8": kept, "kept": 1.0}
    times = {name: Timing(name, (taken,) * 10) for name, taken in seconds.items()}
    said = words.read_layers(errors, ["a"], qualities, times)
    assert phrase in said and "**a**, 29 dB, most of it from its input" in said
    assert ("extra passes" in said) == (kept < 1)
    assert f"{2 - gain:.2f} % away instead of 2.00 %" in said
