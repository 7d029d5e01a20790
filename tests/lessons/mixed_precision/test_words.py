"""Notebook 03: its checks, and its sentences for every outcome."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from support.common import SILLY, refuses, sizes_at, tiny_recipe

from labkit.compare import STEP_TIME, Race, Verdict
from labkit.lessons import Prediction
from labkit.lessons.mixed_precision import checks, measure, words
from labkit.measure import Ceiling, Estimate, standing
from labkit.training import Phases

# ---- checks


def test_largest_fp16():
    assert checks.largest_fp16(torch.finfo(torch.float16).max).right
    assert checks.largest_fp16(65504).right
    refuses(checks.largest_fp16, [65536, 65535, 65503, 2**15, 32752, 131008, -65504, 0, *SILLY])
    assert "spacing" in checks.largest_fp16(2**16).message


def test_smallest_scale():
    right = 8192
    assert checks.smallest_scale(right).right
    normal = torch.finfo(torch.float16).tiny
    assert torch.tensor(1e-8 * right).half() >= normal > torch.tensor(1e-8 * right / 2).half()
    others = [4096, 16384, 65536, 4, 1, 0, -8192, 6104, 1e8, 1e300]
    refuses(checks.smallest_scale, [*others, *SILLY])
    for answer, word in ((2, "zero"), (4, "subnormal"), (7000, "next power"), (16384, "smallest")):
        assert word in checks.smallest_scale(answer).message


def roof(bf16: float = 400.0) -> Ceiling:
    """100 GFLOP/s in fp32 and 10 GB/s: the ridge is at 10 FLOP/byte."""
    peaks = {
        name: Estimate(value, value, value, 9)
        for name, value in (("fp32", 100.0), ("bf16", bf16), ("fp16", 50.0))
    }
    return Ceiling(peaks, peaks, Estimate(10.0, 10.0, 10.0, 9), 1, "cpu")


def standings(under: Ceiling, work: int = 10**9, bytes: int = 10**9) -> dict:
    """fp32 moves `bytes`, bf16 half of them."""
    return {
        "fp32": standing(work, bytes, 0.2, under, "fp32"),
        "bf16": standing(work, bytes // 2, 0.15, under, "bf16"),
    }


def test_allowed_speedup_under_the_slope():
    under = roof()
    placed = standings(under)
    assert measure.allowed(placed, under) == pytest.approx(2)
    assert checks.allowed_speedup(2.0, placed, under).right
    refuses(checks.allowed_speedup, [4.0, 0.5, 1.0, 1.9, 2.1, 0, -2, *SILLY], placed, under)
    assert "flat roofs" in checks.allowed_speedup(4.0, placed, under).message
    assert "Upside down" in checks.allowed_speedup(0.5, placed, under).message


def test_allowed_speedup_under_the_flat_roof():
    under = roof()
    placed = standings(under, work=10**12)
    assert checks.allowed_speedup(4.0, placed, under).right
    refuses(checks.allowed_speedup, [2.0, 0.25, 1.0, 3.5, 5.0], placed, under)


# ---- sentences


@pytest.mark.parametrize(
    ("activations", "phrase"),
    [
        ((-40, -26), ("silence", "Loss scales from `2**15`")),
        ((-27, -16), ("may well survive", "Loss scales from `2**2`")),
        ((-15, -10), ("**0.0%**", "hurt nobody", "Loss scales from `2**0`")),
        ((-60, 10), ("No loss scale",)),
    ],
)
def test_read_gradients(activations, phrase):
    text = words.read_gradients(
        {"activations": sizes_at(*activations), "weights": sizes_at(-12, -8)}
    )
    assert all(word in text for word in phrase), text


def test_read_small_losses():
    same = {0: 0.5, 10: 0.5}
    text = words.read_small_losses(
        {
            "fp32": same,
            "bf16": {0: 0.55, 10: 0.45},
            "fp16": {0: 0.5, 10: math.nan},
            "fp16-unscaled": {0: 0.9, 10: 2.3},
        }
    )
    assert "**fp32**: the same loss for every k" in text
    assert "**bf16**: trains as well" in text
    assert "**fp16**: fails from k = 10" in text
    assert "**fp16-unscaled**: fails from k = 0 on. At k = 10 its loss is 2.30" in text
    text = words.read_small_losses({"fp32": {0: 0.5, 10: 0.6}, "bf16": same})
    assert "last bit" not in text


def test_read_scale():
    read = words.read_scale
    scales = [8.0, 4.0, 2.0, 4.0]
    assert "Every step" in read(scales, [True] * 4)
    text = read(scales, [True, True, False, True])
    assert "**2 steps were left out**" in text
    assert "scale of 2 was" in text
    assert "1 more were" in text
    assert "it doubled 1 times" in text
    assert "After that 0 more" in read(scales[:3], [False] * 3)
    assert "it doubled 0 times" in read(scales[:3], [False] * 3)


def finished(fp16: float, bf16: float, **options) -> Race:
    """A race over the tiny model whose seconds a step were planted: fp32 takes 10 ms."""
    recipe = tiny_recipe()
    arms = {name: recipe.but(precision=name) for name in ("fp32", "bf16", "fp16")}
    race = Race(arms, seeds=1, evaluations=1, **options)
    for _ in race:
        pass
    for name, seconds in (("fp32", 0.01), ("bf16", bf16), ("fp16", fp16)):
        record = race.records[name][0]
        record.seconds[:] = [seconds] * len(record.seconds)
    return race


def test_who_takes_part():
    recipe = tiny_recipe(epochs=1)
    slow = finished(fp16=0.5, bf16=0.012)
    assert list(measure.entrants(slow, recipe)) == ["fp32", "bf16"]
    everyone = measure.entrants(finished(fp16=0.02, bf16=0.006), recipe)
    assert list(everyone) == ["fp32", "bf16", "fp16"]
    assert all(arm.epochs == 1 and arm.precision == name for name, arm in everyone.items())
    none = measure.entrants(finished(fp16=0.5, bf16=0.9), recipe)
    assert list(none) == ["fp32", "fp16"]
    assert {arm.steps for arm in none.values()} == {measure.SHORT}


def test_read_sprint():
    phases = Phases(0.0, 0.002, 0.3, 0.0)
    steps = {name: [SimpleNamespace(phases=phases)] * 9 for name in ("fp32", "bf16", "fp16")}
    text = words.read_sprint(finished(fp16=0.5, bf16=0.012), steps)
    assert "**fp16**: forward 2.0 ms, backward 300.0 ms" in text
    assert "fp16 over fp32, step time: 0.0200x: slower here" in text
    assert "So fp16 cannot" in text
    assert "So bf16 and fp16 cannot" in words.read_sprint(finished(0.5, 0.5), steps)
    assert "all can run" in words.read_sprint(finished(0.02, 0.02), steps)


def test_read_standings():
    under = roof()
    assert words.read_standings(standings(under)).count("moving numbers") == 2
    assert words.read_standings(standings(under, work=10**12)).count("multiplying") == 2


@pytest.mark.parametrize(
    ("bf16", "peak", "phrase"),
    [
        (0.02, 50.0, "slower here, and the roof says why"),
        (0.02, 400.0, "multiplying is not why"),
        (0.01, 400.0, "No difference in time"),
        (0.007, 400.0, "by less than the roof allows (2.00x)"),
        (0.005, 400.0, "gains what the roof allows (2.00x)"),
    ],
)
def test_read_race(bf16, peak, phrase):
    under = roof(peak)
    # With the slow multiplier the bound is still the slope: much is moved, little is computed.
    placed = standings(under, work=10**8)
    race = finished(fp16=0.01, bf16=bf16, target=0.99)
    text = words.read_race(race, Prediction(1.0), placed, under)
    assert phrase in text
    assert "bf16 over fp32, time to target: too few to tell: nothing measured" in text
    assert text.count("peak memory") == 2
    assert "You predicted 1x" in text


def test_read_race_that_was_stopped_at_once():
    under = roof()
    race = Race({"fp32": tiny_recipe(), "bf16": tiny_recipe(precision="bf16")})
    assert "Nothing was timed" in words.read_race(race, Prediction(1), standings(under), under)


def test_every_call_of_a_verdict_has_words():
    verdict = Verdict("bf16", "fp32", STEP_TIME, Estimate(1.5, 1.4, 1.6, 9))
    assert verdict.call == "better"
    for low, high in ((1.4, 1.6), (0.9, 1.1), (0.4, 0.6)):
        estimate = replace(verdict.estimate, value=(low + high) / 2, low=low, high=high)
        assert "**" in words._why(replace(verdict, estimate=estimate), 2.0, 2.0)


def test_read_memory():
    mib = 2**20
    text = words.read_memory(
        {1: {"fp32": mib, "bf16": 2 * mib}, 128: {"fp32": 10 * mib, "bf16": 5 * mib}}
    )
    assert "**batch of 128**: fp32 10.00 MiB (100%), bf16 5.00 MiB (50%)" in text
    assert "copies of the weights" in text
    even = {n: {"fp32": n * mib, "bf16": n * mib // 2} for n in (1, 128)}
    assert "copies" not in words.read_memory(even)
