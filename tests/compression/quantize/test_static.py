"""Static int8: the kernels compute what the roundings say, and the roundings are those by hand."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.quantizing import activations, pictures, products, stored, trained
from torch import Tensor, nn
from torch.nn import functional as F

from labkit import models
from labkit.compression import quantize
from labkit.compression.agreement import decibels
from labkit.compression.quantize import int8_model, lowering
from labkit.compression.quantize.affine import grid, grid_of, integer_linear, to_integers
from labkit.compression.quantize.int8_model import Int8Model
from labkit.compression.quantize.lowering import int8_kernels, weight_bits
from labkit.compression.quantize.observers import Reservoir, classes
from labkit.compression.quantize.ranges import percentile
from labkit.measure import interleave
from labkit.training import evaluate

BATCHES = pictures()


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return trained()


@pytest.fixture(scope="module")
def before(net: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(net.state_dict())


@pytest.fixture(scope="module")
def static(net: nn.Module, before: dict[str, Tensor]) -> Int8Model:
    return quantize.static(net, BATCHES)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.cat([x for x, _ in pictures(2, seed=5)])


def test_the_given_model_is_untouched_and_its_mode_has_no_part(
    net: nn.Module, before: dict[str, Tensor], static: Int8Model, images: Tensor
) -> None:
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    wanted = copy.deepcopy(net).eval()(images).detach()
    assert decibels(wanted, static(images)) > 25
    assert torch.equal(static(images).argmax(1), wanted.argmax(1))


def test_every_convolution_and_linear_layer_runs_in_an_int8_kernel(static: Int8Model) -> None:
    if int8_kernels():
        assert products(static) == {"int8 conv": 9, "int8 linear": 1}
    else:
        assert static.graph is static.reference.graph


def test_linear_layers_on_three_dimensions_run_in_int8_kernels() -> None:
    model = models.transformer(vocabulary=32, width=16, depth=1, heads=2, context=8)
    tokens = torch.randint(32, (4, 8))
    static = quantize.static(model, [(tokens, tokens)])
    if int8_kernels():
        assert products(static) == {"int8 linear": 7}
    more = torch.randint(32, (9, 8))
    wanted = model.eval()(more).detach()
    assert decibels(wanted, static(more)) > 25
    assert decibels(static.reference.graph(more).detach(), static(more)) > 40


def test_the_kernels_are_within_one_step_of_the_reference(
    net: nn.Module, static: Int8Model, images: Tensor
) -> None:
    with torch.no_grad():
        difference = (static(images) - static.reference.graph(images)).abs().max()
    step, _ = activations(static)[-1]  # of the head's input: each of its numbers may fall beside
    assert difference <= step * net.head.weight.abs().sum(1).max()


def test_weights_are_those_by_hand_within_half_a_step(net: nn.Module, static: Int8Model) -> None:
    tensors, modules = stored(static), dict(net.named_modules())
    layers = {n: m for n, m in modules.items() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert len(layers) == 10
    for name, layer in layers.items():
        norm = modules.get(name.replace("conv", "norm").replace("stem", "norm"))
        weight = layer.weight.detach()
        if isinstance(norm, nn.BatchNorm2d):  # folded in
            factor = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
            weight = weight * factor.view(-1, 1, 1, 1)
            bias = norm.bias.detach() - norm.running_mean * factor
            torch.testing.assert_close(tensors[f"{name}.bias"], bias)
        integers, scale = tensors[f"{name}.weight.int8"], tensors[f"{name}.weight.scale"]
        rows = integers.flatten(1) * scale[:, None]
        assert integers.dtype == torch.int8
        assert ((rows - weight.flatten(1)).abs() <= 0.501 * scale[:, None]).all()
        by_hand = to_integers(weight, grid_of(weight, weight_bits(), symmetric=True, dim=0))
        assert (integers - by_hand).abs().max() <= 1  # ties, as the fold rounds differently
        assert (integers != by_hand).float().mean() < 0.01


@pytest.mark.parametrize("bias", [True, False])
def test_one_layer_is_the_integer_product_by_hand(bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(24, 5, bias=bias)
    calibration = [(torch.rand(8, 24) - 0.3, torch.zeros(8)) for _ in range(3)]
    static = quantize.static(layer, calibration)
    seen = torch.cat([x for x, _ in calibration])
    inputs = 2 * torch.rand(7, 24) - 1  # some lie outside and are clipped
    weight = layer.weight.detach()
    by_hand = integer_linear(
        inputs, weight, grid_of(seen), grid_of(weight, weight_bits(), True, 0), layer.bias
    )
    torch.testing.assert_close(static(inputs), by_hand.detach())


def test_ranges_differ_as_they_should() -> None:
    torch.manual_seed(0)
    values = torch.randn(800, 50)
    values[0, 0] = 30.0  # one outlier, in the first of two batches
    steps = {}
    for ranges in ("min-max", "percentile", "mse"):
        observer = classes()[0](ranges, torch.uint8, quant_min=0, quant_max=255)
        for part in values.split(400):
            assert observer(part) is part
        steps[ranges], zero_point = observer.calculate_qparams()
        assert 0 <= zero_point <= 255
    assert steps["min-max"] == pytest.approx((30 - values.min().item()) / 255)
    assert steps["percentile"] < steps["mse"] < steps["min-max"]
    assert steps["percentile"] == grid(*percentile(values)).scale


def test_the_sample_is_bounded_fair_and_holds_the_extremes() -> None:
    reservoir = Reservoir(size=1000)
    everything = torch.arange(100_000.0)
    for part in everything.split(7_000):
        reservoir.add(part)
    seen = reservoir.seen()
    assert len(seen) <= 1002  # with both extremes
    assert (seen.min(), seen.max()) == (0, 99_999)
    # the mean of a fair sample of 1000 is within four of its standard errors
    assert abs(seen.mean() - everything.mean()) < 4 * everything.std() / 1000**0.5
    counts = torch.histc(seen, 10, 0, 100_000)
    assert (counts - 100).abs().max() < 45  # each tenth has its share: early and late batches


@pytest.mark.parametrize("count", [1, 5, 64])
def test_any_batch_size_and_memory_format(static: Int8Model, images: Tensor, count: int) -> None:
    part, answers = images[:count], static(images)[:count]
    assert static(part).shape == (count, 10)
    assert decibels(answers, static(part)) > 40  # float sums in another order, a rounding flips
    assert decibels(answers, static(part.to(memory_format=torch.channels_last))) > 40


def test_it_is_used_like_a_model(static: Int8Model, images: Tensor) -> None:
    assert evaluate(static, BATCHES) > 0.9
    assert not static.training and static.train().training
    trained_mode = static(images)
    assert torch.equal(static.eval()(images), trained_mode)
    assert not static(images.clone().requires_grad_()).requires_grad
    assert not list(static.parameters()) and not static.state_dict()
    assert "static int8 ConvNet" in repr(static)
    interleave({"int8": lambda: static(images)}, rounds=2)


def test_a_copy_works_and_a_pickle_is_refused(static: Int8Model, images: Tensor) -> None:
    assert torch.equal(copy.deepcopy(static)(images), static(images))
    with pytest.raises(TypeError, match="quantize.save"):
        pickle.dumps(static)


def test_a_model_in_training_mode_is_taken_as_in_evaluation(images: Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(256, 4)).train()
    static = quantize.static(model, BATCHES)
    with torch.no_grad():
        assert decibels(model[2](images.flatten(1)), static(images)) > 25
    assert all(module.training for module in model.modules())


class Skip(nn.Module):
    """Adds what a convolution gives to its input: the kernel could add in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.first(x)
        return (y + self.second(y)) * y + x


class Swapped(nn.Module):
    """Adds what a linear layer gives to a tensor whose dimensions lie swapped in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        swapped = (2 * x.transpose(0, 1).contiguous()).transpose(0, 1)
        return swapped + self.layer(F.gelu(x))


@pytest.mark.parametrize(("build", "shape"), [(Skip, (5, 4, 6, 6)), (Swapped, (5, 3, 8))])
def test_sums_are_right_in_any_layout_and_not_written_into_the_input(
    build: type[nn.Module], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    inputs, model = torch.randn(shape), build()
    given = inputs.clone()
    static = quantize.static(model, [(inputs, None)])
    first = static(given)
    assert torch.equal(given, inputs) and torch.equal(static(given), first)
    with torch.no_grad():
        assert decibels(static.reference.graph(inputs), first) > 40
        assert decibels(model(inputs), first) > 30


def test_named_modules_stay_in_float(images: Tensor) -> None:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3))
    model = nn.Sequential(block, nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 5))
    mixed = quantize.static(model, BATCHES[:1], keep_float=["0", "4"])
    tensors = stored(mixed)
    floats = {name for name in tensors if name.endswith("weight")}
    assert floats == {"0.0.weight", "0.3.weight", "4.weight"}
    assert torch.equal(tensors["4.weight"], model[4].weight)
    assert [name for name in tensors if name.endswith(".int8")] == ["1.weight.int8"]
    if int8_kernels():
        assert products(mixed) == {"int8 conv": 1, "float": 3}
    with torch.no_grad():
        assert decibels(model.eval()(images), mixed(images)) > 25


def test_without_kernels_the_reference_runs(
    monkeypatch: pytest.MonkeyPatch, static: Int8Model, images: Tensor
) -> None:
    monkeypatch.setattr(int8_model, "int8_kernels", lambda: "")
    plain = Int8Model(static.reference)
    with torch.no_grad():
        assert torch.equal(plain(images), plain.reference.graph(images))
    assert decibels(static(images), plain(images)) > 40
    assert "no int8 kernels" in repr(plain)


def test_the_kernels_that_run_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = {"avx2": True, "avx512_bw": True, "avx512_vnni": True}
    for flags, supported, saturates, name in (
        (wide | {"amx_int8": True}, True, False, "amx-int8"),
        (wide, True, False, "avx512-vnni"),
        (wide, True, True, "avx512"),  # oneDNN does without VNNI, whatever the processor has
        (wide, False, True, "avx2"),
        ({"avx2": True, "avx_vnni": True}, False, False, "avx-vnni"),
        ({"avx2": True}, False, True, "avx2"),
        ({"architecture": "aarch64"}, False, False, ""),
    ):
        monkeypatch.setattr(lowering, "_capabilities", lambda flags=flags: flags)
        monkeypatch.setattr(lowering, "_wide", lambda supported=supported: supported)
        monkeypatch.setattr(lowering, "int8_saturates", lambda saturates=saturates: saturates)
        assert int8_kernels() == name
        assert weight_bits() == (7 if name in ("avx512", "avx2") else 8)


def test_where_sums_saturate_weights_have_seven_bits_and_accuracy_stays(
    monkeypatch: pytest.MonkeyPatch, net: nn.Module, static: Int8Model, tmp_path: Path
) -> None:
    quantize.save(static, tmp_path / "as it is here")
    monkeypatch.setattr(lowering, "int8_saturates", lambda: True)
    small = quantize.static(net, BATCHES)
    loaded = quantize.load(tmp_path / "as it is here", net)
    assert "weights in 7 bits" in repr(small)
    test = pictures(40, seed=5)
    for model in (small, loaded):
        for name, tensor in stored(model).items():
            assert not name.endswith(".int8") or 60 < tensor.abs().max() <= 64
        assert abs(evaluate(model, test) - evaluate(net, test)) <= 0.003
    assert abs(evaluate(static, test) - evaluate(net, test)) <= 0.003


ASKED = """
from labkit.compression.quantize.lowering import int8_kernels, weight_bits
from labkit.facts import breaks_strided_1x1
print(int8_kernels() or "none", weight_bits(), breaks_strided_1x1())
"""


def test_a_processor_is_judged_by_what_its_kernels_do() -> None:
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, "-c", ASKED]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ("avx2 7 True" if int8_kernels() else "none 8 False")
