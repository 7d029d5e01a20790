"""Notebook 03: its checks, what it works out, and its sentences for every call."""

from __future__ import annotations

import pytest
import torch
from support.common import SILLY, refuses, sizes_at, tiny_recipe
from support.verdicts import each_call

from labkit.compare import Quantity, Race
from labkit.lessons import Prediction, Sentences, sentence
from labkit.lessons.mixed_precision import checks, measure, words
from labkit.measure import Ceiling, Estimate, standing
from labkit.training.task import ACCURACY, LOSS

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
    assert measure.roof_figures(placed, under) == {"bound": pytest.approx(2), "peak": 4}
    assert checks.allowed_speedup(2.0, placed, under).right
    refuses(checks.allowed_speedup, [4.0, 0.5, 1.0, 1.9, 2.1, 0, -2, *SILLY], placed, under)
    assert "flat roofs" in checks.allowed_speedup(4.0, placed, under).message
    assert "Upside down" in checks.allowed_speedup(0.5, placed, under).message


def test_allowed_speedup_under_the_flat_roof():
    under = roof()
    placed = standings(under, work=10**12)
    assert checks.allowed_speedup(4.0, placed, under).right
    refuses(checks.allowed_speedup, [2.0, 0.25, 1.0, 3.5, 5.0], placed, under)


# ---- what it works out


@pytest.mark.parametrize(
    ("activations", "said"),
    [
        ((-40, -26), "from `2**15` to `2**23`"),  # weights reach 2**-8, fp16 ends below 2**16
        ((-27, -16), "from `2**2` to `2**23`"),
        ((-15, -10), "from `2**0` to `2**23`"),
        ((-60, 10), words.NO_SCALE),
    ],
)
def test_safe_scales(activations, said):
    sizes = {"activations": sizes_at(*activations), "weights": sizes_at(-12, -8)}
    assert said in words.read_scales(measure.safe_scales(sizes))


@pytest.mark.parametrize(
    ("skipped", "said"),
    [
        ([True] * 4, ["4 of 4 steps", "4 of them came at the start"]),
        ([True, True, False, True], ["3 of 4 steps", "2 of them"]),
        ([False] * 4, ["0 of 4 steps", "0 of them"]),
    ],
)
def test_read_scale(skipped, said):
    text = words.read_scale([8.0, 4.0, 2.0, 4.0], skipped)
    assert all(part in text for part in [*said, "scale was 2.", "It doubled 1 times"]), text


def test_the_smallest_loss_is_compared_image_by_image():
    plain = torch.linspace(0.1, 1.1, 100)
    losses = {
        "fp32": {0: plain, 9: plain},
        "same": {0: plain + 1, 9: plain.clone()},
        "broken": {0: plain, 9: plain + 1 + 0.01 * plain.flip(0)},
    }
    samples = measure.smallest_loss(losses)
    assert samples.verdict("same").call == "no difference that matters"
    assert samples.verdict("broken").call == "worse"
    assert samples.verdict("broken").estimate.n == 100


def finished(fp16: float, bf16: float) -> Race:
    """A race over the tiny model whose seconds a step were planted: fp32 takes 10 ms."""
    recipe = tiny_recipe()
    race = Race({n: recipe.but(precision=n) for n in ("fp32", "bf16", "fp16")}, seeds=1)
    samples = measure.passes(race)
    for on in samples.quantities:
        assert samples.value("fp16", on).n == 10 - 3
    for name, seconds in (("fp32", 0.01), ("bf16", bf16), ("fp16", fp16)):
        record = race.records[name][0]
        record.seconds[:] = [seconds] * len(record.seconds)
    return race


@pytest.mark.parametrize(
    ("bf16", "fp16", "names"),
    [(0.012, 0.5, ["fp32", "bf16"]), (0.006, 0.02, ["fp32", "bf16", "fp16"])],
)
def test_who_takes_part(bf16, fp16, names):
    arms = measure.entrants(finished(fp16=fp16, bf16=bf16), tiny_recipe(epochs=1))
    assert list(arms) == names
    assert all(arm.epochs == 1 and arm.precision == name for name, arm in arms.items())


def test_if_all_are_slow_the_least_slow_one_takes_part_shortly():
    arms = measure.entrants(finished(fp16=0.5, bf16=0.9), tiny_recipe(epochs=1))
    assert list(arms) == ["fp32", "fp16"]
    assert {arm.steps for arm in arms.values()} == {measure.SHORT}


def test_bytes_kept_are_exact():
    assert measure.kept_for_backward(1).exact
    assert measure.kept_for_backward(1).name != measure.kept_for_backward(128).name


# ---- sentences


@pytest.mark.parametrize(
    ("sentences", "quantity"),
    [
        (words.SMALL_LOSS, Quantity.of(LOSS)),
        (words.TIME, None),
        (words.ACCURACY, Quantity.of(ACCURACY)),
    ],
)
def test_every_call_has_a_sentence_of_its_own(sentences: Sentences, quantity):
    verdicts = each_call(*([quantity] if quantity else []), candidate="bf16", baseline="fp32")
    said = [sentence(v, sentences, bound=2.0, peak=0.5) for v in verdicts.values()]
    assert len(set(said)) == 5 and not any("{" in text or "inf" in text for text in said)


def test_a_race_that_was_stopped_is_read_as_far_as_it_came():
    race = Race({"fp32": tiny_recipe(), "bf16": tiny_recipe(precision="bf16")}, seeds=1)
    figures = measure.roof_figures(standings(roof()), roof())
    text = words.read_race(race, Prediction(1), **figures)
    assert text.count("too few") >= 2 and "inf" not in text
    for rounds in (5, 5):
        for _ in range(rounds):
            race.advance()
        text = words.read_race(race, Prediction(1), **figures)
        assert str(race.verdict("bf16")) in text and "You predicted 1x" in text
        assert str(race.verdict("bf16", on="accuracy")) in text
    assert race.finished and "accuracy: too few" not in text
