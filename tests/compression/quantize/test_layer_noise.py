"""The error report: decibels as arithmetic gives them, each layer for itself, nothing touched."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from labkit import models
from labkit.compression import quantize
from labkit.compression.quantize.affine import grid, grid_of, round_trip
from labkit.compression.quantize.layer_noise import LayerError, layer_errors, leave_in_float
from labkit.compression.quantize.ranges import RANGES


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def images(count: int = 32, batches: int = 1) -> list[tuple[torch.Tensor, torch.Tensor]]:
    labels = torch.zeros(count, dtype=torch.int64)
    return [(torch.randn(count, 1, 28, 28), labels) for _ in range(batches)]


def features(*shape: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.rand(*shape), torch.zeros(shape[0], dtype=torch.int64))]


def signal_to_noise(right: torch.Tensor, other: torch.Tensor) -> float:
    right, other = right.detach().double(), other.detach().double()
    return float(10 * (right.square().sum() / (right - other).square().sum()).log10())


# --- the figures


def uniform_layer():
    """Weights and inputs that are uniform from -1 to 1."""
    layer = nn.Linear(256, 256, bias=False)
    nn.init.uniform_(layer.weight, -1, 1)
    return layer, [(torch.rand(512, 256) * 2 - 1, torch.zeros(512))]


@pytest.mark.parametrize("bits", range(3, 9))
def test_uniform_numbers_have_the_decibels_of_their_step(bits):
    """Signal is the range's square / 12, noise the step's: 6 dB a bit."""
    layer, batches = uniform_layer()
    (report,) = layer_errors(layer, batches, bits)
    inputs, weights = 2**bits - 1, 2**bits - 2  # steps; of a symmetric grid one stays unused
    assert report.activations == pytest.approx(20 * math.log10(inputs), abs=0.2)
    assert report.weights == pytest.approx(20 * math.log10(weights), abs=0.2)
    # two independent noises: their energies add up
    both = -10 * math.log10(inputs**-2 + weights**-2)
    assert report.both == pytest.approx(both, abs=0.2)


def test_each_bit_more_is_worth_six_decibels():
    layer = nn.Conv2d(8, 8, 3)
    batches = [(torch.randn(16, 8, 10, 10), torch.zeros(16))]
    reports = [layer_errors(layer, batches, bits)[0] for bits in range(4, 9)]
    for kind in ("weights", "activations", "both"):
        gained = (getattr(reports[-1], kind) - getattr(reports[0], kind)) / 4
        assert gained == pytest.approx(20 * math.log10(2), abs=0.4)


@pytest.mark.parametrize("ranges", RANGES)
@pytest.mark.parametrize("bits", [4, 8])
def test_one_linear_layer_agrees_with_the_hand_computation(ranges, bits):
    layer = nn.Linear(20, 7)
    batches = [(torch.randn(n, 20) + 1, torch.zeros(n)) for n in (16, 5)]
    (report,) = layer_errors(layer, batches, bits, ranges)

    x = torch.cat([inputs for inputs, _ in batches])
    x_rounded = round_trip(x, grid(*RANGES[ranges](x, bits), bits))
    rows = layer.weight.detach()
    rounded = torch.stack([round_trip(row, grid_of(row, bits, symmetric=True)) for row in rows])
    y, bias = x @ rows.T + layer.bias, layer.bias
    assert report.name == ""
    assert report.weights == pytest.approx(signal_to_noise(y, x @ rounded.T + bias), abs=1e-3)
    assert report.activations == pytest.approx(
        signal_to_noise(y, x_rounded @ rows.T + bias), abs=1e-3
    )
    assert report.both == pytest.approx(signal_to_noise(y, x_rounded @ rounded.T + bias), abs=1e-3)


def test_a_convolution_has_a_scale_for_each_output_channel():
    layer = nn.Conv2d(3, 4, 3, stride=2, padding=1, padding_mode="reflect", bias=False)
    with torch.no_grad():
        layer.weight *= torch.tensor([1e-3, 1.0, 10.0, 1e3])[:, None, None, None]
    small = torch.randn(8, 3, 12, 12)
    (report,) = layer_errors(layer, [(small, small)])
    assert report.weights > 40  # one scale for all would leave the first three channels at zero
    same = nn.Conv2d(3, 4, 3, stride=2, padding=1, padding_mode="reflect", bias=False)
    with torch.no_grad():
        same.weight.copy_(
            torch.stack([round_trip(w, grid_of(w, symmetric=True)) for w in layer.weight])
        )
    assert report.weights == pytest.approx(signal_to_noise(layer(small), same(small)), abs=1e-3)


def test_nothing_lost_is_infinite_and_a_silent_layer_is_not_a_fault():
    exact = nn.Linear(2, 1, bias=False)
    silent = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        exact.weight.copy_(torch.tensor([[127.0, -3.0]]))
        silent.weight.zero_()
    whole = [(torch.tensor([[0.0, 255.0], [17.0, 4.0]]), torch.zeros(2))]
    for layer in (exact, silent):
        (report,) = layer_errors(layer, whole)
        assert report == LayerError("", math.inf, math.inf, math.inf)


def test_one_huge_input_costs_bits_and_clipping_gives_them_back():
    layer = nn.Linear(64, 64)
    x = torch.randn(512, 64)
    (clean,) = layer_errors(layer, [(x, x)], bits=4)
    x[0, 0] = 60.0
    (stretched,) = layer_errors(layer, [(x, x)], bits=4)
    (clipped,) = layer_errors(layer, [(x, x)], bits=4, ranges="percentile")
    assert stretched.activations < clean.activations - 10
    assert clipped.activations > stretched.activations + 6
    assert clipped.weights == stretched.weights == pytest.approx(clean.weights, abs=0.5)


# --- which layers, and in which order


def test_every_layer_of_the_convnet_has_an_entry_in_the_order_of_the_model():
    model = models.convnet(width=4)
    kinds = (nn.Conv2d, nn.Linear)
    expected = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    assert [report.name for report in layer_errors(model, images())] == expected


def test_linear_layers_on_sequences_and_one_dimensional_convolutions_take_part():
    sequence = models.transformer(50, width=16, depth=1, heads=2, context=8)
    tokens = [(torch.randint(50, (4, 8)), torch.zeros(4))]
    names = [report.name for report in layer_errors(sequence, tokens)]
    assert names == [n for n, m in sequence.named_modules() if isinstance(m, nn.Linear)]
    signal = nn.Sequential(nn.Conv1d(2, 3, 5), nn.ReLU(), nn.Conv1d(3, 3, 1))
    assert [report.name for report in layer_errors(signal, features(4, 2, 20))] == ["0", "2"]


class Aside(nn.Module):
    """Calls one layer twice, the second time by the argument's name, and another never."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(input=self.used(x).mul_(3))


def test_a_layer_used_twice_has_one_range_and_an_unused_one_no_entry():
    model, batches = Aside(), features(16, 6)
    (report,) = layer_errors(model, batches)
    x = batches[0][0]
    both = torch.cat([x, model.used(x).mul(3)])
    (expected,) = layer_errors(model.used, [(both, both)])
    assert report.name == "used"
    assert report.both == pytest.approx(expected.both, abs=1e-3)


def test_what_a_layer_was_fed_is_kept_though_the_model_works_in_place():
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + 0
            y = self.layer(x)
            return y + x.mul_(0)

    model, batches = InPlace(), features(16, 6)
    (report,) = layer_errors(model, batches)
    (expected,) = layer_errors(model.layer, batches)
    assert report.both == expected.both < 60


def test_each_layer_is_fed_by_the_float_model():
    """A hopeless first layer does not lower the figures of those behind it."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    batches = features(64, 8)
    _, before = layer_errors(model, batches, bits=4)
    hidden = [(model[1](model[0](x)).detach(), y) for x, y in batches]
    (alone,) = layer_errors(model[2], hidden, bits=4)
    assert (before.weights, before.activations) == (alone.weights, alone.activations)


# --- untouched, and the same again


def test_the_model_is_left_as_it_was_and_the_report_is_the_same_again():
    model = models.convnet(width=4).train()
    model.norm.eval()
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batches = images(batches=2)
    given = [x.clone() for x, _ in batches]
    state = torch.get_rng_state()
    first = layer_errors(model, batches)
    assert first == layer_errors(model, batches)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(x, old) for (x, _), old in zip(batches, given, strict=True))


def test_dropout_is_off_while_the_report_is_made():
    model = nn.Sequential(nn.Dropout(0.9), nn.Linear(8, 8)).train()
    batches = features(64, 8)
    (report,) = layer_errors(model, batches)
    (expected,) = layer_errors(model[1], batches)
    assert report.both == expected.both


# --- which to leave in float


def test_the_worst_layers_come_first():
    errors = [
        LayerError("a", 30.0, 30.0, 19.9),
        LayerError("b", 10.0, 50.0, 20.0),
        LayerError("c", math.inf, -math.inf, -math.inf),
        LayerError("d", 5.0, 5.0, math.inf),
        LayerError("e", 50.0, 50.0, 3.0),
    ]
    assert leave_in_float(errors) == ("c", "e", "a")
    assert leave_in_float(errors, decibels=3) == ("c",)
    assert leave_in_float(errors, decibels=math.inf) == ("c", "e", "a", "b")
    assert leave_in_float([]) == ()


class Outlier(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.full_like(x[:1], 40.0), x[1:]])


def test_the_layer_behind_an_outlier_is_named():
    model = nn.Sequential(nn.Linear(64, 64), Outlier(), nn.Linear(64, 64))
    batches = [(torch.randn(512, 64), torch.zeros(512))]
    assert leave_in_float(layer_errors(model, batches, bits=4), decibels=14) == ("2",)


def test_the_names_are_those_that_quantizing_takes():
    model = models.convnet(width=4)
    errors = layer_errors(model, images())
    middle = sorted(error.both for error in errors)[len(errors) // 2]
    kept = leave_in_float(errors, middle)
    assert 0 < len(kept) < len(errors)
    small = quantize.weights(model, keep_float=kept)
    layers = {error.name: small.get_submodule(error.name) for error in errors}
    assert [name for name in layers if is_parametrized(layers[name])] == [
        error.name for error in errors if error.name not in kept
    ]


# --- bad input


def test_refuses_what_it_cannot_measure():
    with pytest.raises(TypeError, match="model must be of type Module, got <function"):
        layer_errors(lambda x: x, images())
    with pytest.raises(ValueError, match="ranges must be one of min-max, .* got 'widest'"):
        layer_errors(models.convnet(width=2), images(), ranges="widest")
    with pytest.raises(ValueError, match="bits must be"):
        layer_errors(models.convnet(width=2), images(2), bits=1)
    with pytest.raises(ValueError, match="batches is empty"):
        layer_errors(models.convnet(width=2), [])
    with pytest.raises(ValueError, match="model calls no convolution or linear layer"):
        layer_errors(nn.ReLU(), images())


@pytest.mark.parametrize("decibels", [math.nan, True])
def test_a_limit_that_is_no_number_is_refused(decibels):
    with pytest.raises(ValueError, match="decibels must be a number, got"):
        leave_in_float([], decibels)
