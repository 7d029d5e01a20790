"""Notebook 03: number formats against torch, gradients, its checks and its sentences."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tests_support import tiny_data, tiny_model, tiny_recipe
from torch.nn import functional as F

from labkit.compare import Race, Verdict
from labkit.lessons import Prediction, lesson_03
from labkit.measure import Ceiling, Estimate, standing
from labkit.measure.formats import FORMATS, format_table
from labkit.measure.gradients import fates, gradient_magnitudes
from labkit.training import Phases
from labkit.widgets import pictures_03
from labkit.widgets.style import to_png

SILLY = ["", "5", [], {}, (1, 2), math.nan, math.inf, -math.inf, True, object(), torch.ones(2), 1j]

# ---- number formats


@pytest.fixture(params=FORMATS.values(), ids=FORMATS)
def form(request):
    return request.param


def test_bits_give_what_torch_says(form):
    info = torch.finfo(form.dtype)
    assert 1 + form.exponent_bits + form.fraction_bits == info.bits
    assert (form.largest, form.smallest_normal) == (info.max, info.tiny)
    assert form.smallest == torch.tensor(0.0, dtype=form.dtype).nextafter(
        torch.tensor(1.0, dtype=form.dtype)
    )
    assert form.spacing(1.0) == info.eps


@pytest.mark.parametrize("power", [*range(-24, 16), -130, 100])
def test_spacing_is_the_way_to_the_next_number(form, power):
    value = 1.5 * 2.0**power if power > -24 else 2.0**power
    if form.fate(value) in ("zero", "infinite"):
        return
    stored = torch.tensor(form.store(value), dtype=form.dtype)
    following = stored.nextafter(torch.tensor(math.inf, dtype=form.dtype))
    if power > form.lowest - form.fraction_bits:
        assert form.spacing(value) == following.double().item() - stored.double().item()
    assert form.spacing(-value) == form.spacing(value)


@pytest.mark.parametrize("value", [math.inf, math.nan, 1e39])
def test_no_spacing_beyond_the_range(form, value):
    with pytest.raises(ValueError, match="range"):
        form.spacing(value)


def test_fates_at_the_borders(form):
    """Half the smallest number is rounded to zero (a tie goes to even), a bit more is kept."""
    half = form.smallest / 2
    assert form.fate(half) == form.fate(-half) == "zero"
    assert form.fate(half * 1.01) == form.fate(form.smallest) == "subnormal"
    assert form.fate(form.smallest_normal) == form.fate(form.largest) == "normal"
    assert form.fate(form.largest * 2) == "infinite"


def test_the_table_has_a_row_for_each_format():
    table = format_table()
    assert [row[0] for row in table.rows] == list(FORMATS)
    assert dict(zip(table.headers, table.rows[2], strict=True))["largest"] == "6.55e+04"


# ---- gradients


def test_fates_of_known_numbers():
    numbers = torch.tensor([1e-9, 2.0**-24, 2.0**-20, 1.0, 1e5])
    shares = fates(numbers)
    assert (shares.zero, shares.subnormal, shares.normal, shares.infinite) == pytest.approx(
        (0.2, 0.4, 0.2, 0.2)
    )
    assert fates(numbers, 2.0**16).zero == 0
    assert fates(numbers, name="bf16").normal == pytest.approx(1)


def test_fates_agree_with_each_number_on_its_own():
    numbers = 2.0 ** (60 * torch.rand(300, generator=torch.Generator().manual_seed(0)) - 35)
    for name, form in FORMATS.items():
        alone = [form.fate(number) for number in (numbers * 8).tolist()]
        shares = fates(numbers, 8.0, name)
        for fate in ("zero", "subnormal", "normal", "infinite"):
            assert getattr(shares, fate) == pytest.approx(alone.count(fate) / 300), (name, fate)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"scale": 0.0}, "scale"),
        ({"scale": math.nan}, "scale"),
        ({"name": "fp8"}, "name"),
        ({"magnitudes": torch.empty(0)}, "magnitudes"),
    ],
)
def test_fates_refuse(change, word):
    with pytest.raises(ValueError, match=word):
        fates(**({"magnitudes": torch.ones(2)} | change))


def test_magnitudes_against_a_gradient_by_hand():
    """y = w x, loss = y**2: the gradient of y is 2 y, that of w is 2 y x."""
    model = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        model[0].weight.fill_(3.0)
    x, target = torch.tensor([[2.0]]), torch.tensor([[0.0]])
    sizes = gradient_magnitudes(model, lambda y, t: ((y - t) ** 2).sum(), x, target)
    assert sizes["activations"].tolist() == [12.0]
    assert sizes["weights"].tolist() == [24.0]


def test_magnitudes_scale_with_the_loss_and_leave_the_model_alone():
    model, data = tiny_model(), tiny_data()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images, labels = next(iter(data.batches(16)))
    plain = gradient_magnitudes(model, F.cross_entropy, images, labels)
    halved = gradient_magnitudes(model, lambda o, t: F.cross_entropy(o, t) / 2, images, labels)
    for name in ("activations", "weights"):
        assert (plain[name] > 0).all()
        torch.testing.assert_close(halved[name], plain[name] / 2, rtol=0, atol=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_weights_are_those_of_backward():
    model, (images, labels) = tiny_model(), next(iter(tiny_data().batches(16)))
    sizes = gradient_magnitudes(model, F.cross_entropy, images, labels)["weights"]
    F.cross_entropy(model(images), labels).backward()
    full = torch.cat([parameter.grad.flatten().abs() for parameter in model.parameters()])
    torch.testing.assert_close(sizes, full[full > 0], rtol=0, atol=0)


def test_a_model_without_parameters_is_refused():
    with pytest.raises(ValueError, match="no parameter"):
        gradient_magnitudes(torch.nn.ReLU(), F.mse_loss, torch.ones(1), torch.ones(1))


# ---- checks


def wrong(check, answers, *context):
    """Every answer must be refused, in words."""
    for answer in answers:
        feedback = check(answer, *context)
        assert feedback.right is False, answer
        assert len(feedback.message) > 10
    for answer in (None, ...):
        assert check(answer, *context).right is None


def test_largest_fp16():
    assert lesson_03.largest_fp16(torch.finfo(torch.float16).max).right
    assert lesson_03.largest_fp16(65504).right
    wrong(lesson_03.largest_fp16, [65536, 65535, 65503, 2**15, 32752, 131008, -65504, 0, *SILLY])
    assert "spacing" in lesson_03.largest_fp16(2**16).message


def test_smallest_scale():
    right = 8192
    assert lesson_03.smallest_scale(right).right
    normal = torch.finfo(torch.float16).tiny
    assert torch.tensor(1e-8 * right).half() >= normal > torch.tensor(1e-8 * right / 2).half()
    wrong(lesson_03.smallest_scale, [4096, 16384, 65536, 4, 1, 0, -8192, 6104, 1e8, 1e300, *SILLY])
    for answer, word in ((2, "zero"), (4, "subnormal"), (7000, "next power"), (16384, "smallest")):
        assert word in lesson_03.smallest_scale(answer).message


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
    assert lesson_03.allowed(placed, under) == pytest.approx(2)
    assert lesson_03.allowed_speedup(2.0, placed, under).right
    wrong(lesson_03.allowed_speedup, [4.0, 0.5, 1.0, 1.9, 2.1, 0, -2, *SILLY], placed, under)
    assert "flat roofs" in lesson_03.allowed_speedup(4.0, placed, under).message
    assert "Upside down" in lesson_03.allowed_speedup(0.5, placed, under).message


def test_allowed_speedup_under_the_flat_roof():
    under = roof()
    placed = standings(under, work=10**12)
    assert lesson_03.allowed_speedup(4.0, placed, under).right
    wrong(lesson_03.allowed_speedup, [2.0, 0.25, 1.0, 3.5, 5.0], placed, under)


# ---- sentences


def sizes_at(low: float, high: float) -> torch.Tensor:
    return 2.0 ** torch.linspace(low, high, 20_001)


@pytest.mark.parametrize(
    ("activations", "words"),
    [
        ((-40, -26), ("silence", "Loss scales from `2**15`")),
        ((-27, -16), ("may well survive", "Loss scales from `2**2`")),
        ((-15, -10), ("**0.0%**", "hurt nobody", "Loss scales from `2**0`")),
        ((-60, 10), ("No loss scale",)),
    ],
)
def test_read_gradients(activations, words):
    text = lesson_03.read_gradients(
        {"activations": sizes_at(*activations), "weights": sizes_at(-12, -8)}
    )
    assert all(word in text for word in words), text


def test_read_small_losses():
    same = {0: 0.5, 10: 0.5}
    text = lesson_03.read_small_losses(
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
    text = lesson_03.read_small_losses({"fp32": {0: 0.5, 10: 0.6}, "bf16": same})
    assert "last bit" not in text


def test_read_scale():
    read = lesson_03.read_scale
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
    assert list(lesson_03.entrants(slow, recipe)) == ["fp32", "bf16"]
    everyone = lesson_03.entrants(finished(fp16=0.02, bf16=0.006), recipe)
    assert list(everyone) == ["fp32", "bf16", "fp16"]
    assert all(arm.epochs == 1 and arm.precision == name for name, arm in everyone.items())
    none = lesson_03.entrants(finished(fp16=0.5, bf16=0.9), recipe)
    assert list(none) == ["fp32", "fp16"]
    assert {arm.steps for arm in none.values()} == {lesson_03.SHORT}


def test_read_sprint():
    phases = Phases(0.0, 0.002, 0.3, 0.0)
    steps = {name: [SimpleNamespace(phases=phases)] * 9 for name in ("fp32", "bf16", "fp16")}
    text = lesson_03.read_sprint(finished(fp16=0.5, bf16=0.012), steps)
    assert "**fp16**: forward 2.0 ms, backward 300.0 ms" in text
    assert "fp16 over fp32, step time: 0.02x: slower here" in text
    assert "So fp16 cannot" in text
    assert "So bf16 and fp16 cannot" in lesson_03.read_sprint(finished(0.5, 0.5), steps)
    assert "all can run" in lesson_03.read_sprint(finished(0.02, 0.02), steps)


def test_read_standings():
    under = roof()
    assert lesson_03.read_standings(standings(under)).count("moving numbers") == 2
    assert lesson_03.read_standings(standings(under, work=10**12)).count("multiplying") == 2


@pytest.mark.parametrize(
    ("bf16", "peak", "words"),
    [
        (0.02, 50.0, "slower here, and the roof says why"),
        (0.02, 400.0, "multiplying is not why"),
        (0.01, 400.0, "No difference in time"),
        (0.007, 400.0, "by less than the roof allows (2.00x)"),
        (0.005, 400.0, "gains what the roof allows (2.00x)"),
    ],
)
def test_read_race(bf16, peak, words):
    under = roof(peak)
    # With the slow multiplier the bound is still the slope: much is moved, little is computed.
    placed = standings(under, work=10**8)
    race = finished(fp16=0.01, bf16=bf16, target=0.99)
    text = lesson_03.read_race(race, Prediction(1.0), placed, under)
    assert words in text
    assert "bf16, time to target: nothing to compare" in text
    assert text.count("peak memory") == 2
    assert "You predicted 1x" in text


def test_read_race_that_was_stopped_at_once():
    under = roof()
    race = Race({"fp32": tiny_recipe(), "bf16": tiny_recipe(precision="bf16")})
    assert "Nothing was timed" in lesson_03.read_race(race, Prediction(1), standings(under), under)


def test_every_call_of_a_verdict_has_words():
    verdict = Verdict("bf16", "fp32", "step time", Estimate(1.5, 1.4, 1.6, 9))
    assert verdict.call == "better"
    for low, high in ((1.4, 1.6), (0.9, 1.1), (0.4, 0.6)):
        estimate = replace(verdict.estimate, value=(low + high) / 2, low=low, high=high)
        assert "**" in lesson_03._why(replace(verdict, estimate=estimate), 2.0, 2.0)


def test_read_memory():
    mib = 2**20
    text = lesson_03.read_memory(
        {1: {"fp32": mib, "bf16": 2 * mib}, 128: {"fp32": 10 * mib, "bf16": 5 * mib}}
    )
    assert "**batch of 128**: fp32 10.00 MiB (100%), bf16 5.00 MiB (50%)" in text
    assert "copies of the weights" in text
    even = {n: {"fp32": n * mib, "bf16": n * mib // 2} for n in (1, 128)}
    assert "copies" not in lesson_03.read_memory(even)


# ---- pictures


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("power", [-30, -25, -24, -20, -14, 0, 15, 16, 20])
def test_neighbors_says_what_becomes_of_the_value(name, power):
    _, text = pictures_03.neighbors(name, power)
    fate = FORMATS[name].fate(2.0**power)
    expected = {"zero": "becomes 0", "infinite": "becomes infinity", "subnormal": "Subnormal"}
    assert expected.get(fate, "is exact") in text


@pytest.mark.parametrize("power", [-24, -20, -15, -14, -13, 0, 14])
@pytest.mark.parametrize(("row", "name"), [(0, "fp16"), (1, "bf16")])
def test_neighbors_draws_every_number_in_the_window(row, name, power):
    """Against all 65,536 bit patterns of the format."""
    fig, _ = pictures_03.neighbors(name, power)
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(FORMATS[name].dtype).double()
    width = pictures_03.WINDOW * 2.0**power
    wanted = every[(every - 2.0**power).abs() <= width].tolist()
    drawn = {2.0**power * stroke[0][0] for stroke in fig.axes[1].collections[row].get_segments()}
    assert sorted(drawn) == wanted


def test_neighbors_counts_the_bits_that_are_left():
    assert "4 of 10" in pictures_03.neighbors("fp16", -20)[1]
    assert "0 of 10" in pictures_03.neighbors("fp16", -24)[1]


def test_gradient_picture_moves_with_the_scale():
    sizes = {"activations": sizes_at(-30, -20), "weights": sizes_at(-12, -8)}
    fig, text = pictures_03.gradients(sizes, 0)
    assert "Activations: 50" in text
    assert "Weights: 0.00% become 0, 0.00% subnormal, 0.00% infinite" in text
    shifted, text = pictures_03.gradients(sizes, 26)
    assert "Activations: 0.00% become 0" in text
    assert "Weights: 0.00% become 0, 0.00% subnormal, 50" in text
    peaks = [axes.patches[0].get_data().values.argmax() for axes in (fig.axes[0], shifted.axes[0])]
    assert peaks[1] - peaks[0] == 26  # bins of one power of two, to the right


def test_small_losses_and_scale_history_draw_what_they_get():
    fig = pictures_03.small_losses({"fp32": {0: 0.5, 8: 0.5}, "fp16": {0: 0.5, 8: 0.9}})
    assert [list(line.get_ydata()) for line in fig.axes[0].lines] == [[0.5, 0.5], [0.5, 0.9]]
    fig = pictures_03.scale_history([8.0, 4.0, 4.0], [True, False, False])
    steps, crosses = fig.axes[0].lines
    assert list(steps.get_ydata()) == [3, 2, 2]
    assert list(crosses.get_xdata()) == [0]
    assert to_png(pictures_03.scale_history([4.0, 4.0], [False, False]))
