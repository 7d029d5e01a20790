"""Quantization-aware training: the loss of the rounded network, and where it ends."""

import copy

import pytest
import torch
from support import pruning as support
from torch import Tensor, nn
from torch.nn import functional as F

from labkit import models
from labkit.compression import quantize
from labkit.compression.quantize.aware_training import RoundedWeight, finish
from labkit.compression.quantize.weight_only import quantizable
from labkit.training import SGD, cosine, supervised, train

ROUNDING = 100 * torch.finfo(torch.float32).eps  # of a few layers with sums of a hundred products
SETTINGS = [(8, None), (4, 32), (3, 10), (2, None)]


def weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights as the forward pass sees them, by their name in the float model."""
    layers = (nn.Linear, nn.Conv2d)
    return {
        f"{name}.weight": module.weight.detach()
        for name, module in model.named_modules()
        if isinstance(module, layers)
    }


def behind(model: nn.Module) -> nn.Module:
    """The float model behind one that rounds: what `quantize.weights` is to be compared on."""
    names = {
        f"{key.removesuffix('.original').replace('parametrizations.', '')}": value
        for key, value in model.state_dict().items()
    }
    plain = models.convnet(width=4).train(model.training)
    plain.load_state_dict(names)
    return plain


def trained(bits: int, group: int | None, precision: str = "fp32") -> tuple[nn.Module, Tensor]:
    model, images = support.make("convnet", batch=16)
    aware = quantize.aware(model, bits, group)
    labels = torch.arange(16) % 10
    optimizer = torch.optim.AdamW(aware.parameters(), lr=0.003)
    steps = list(train(aware, [(images, labels)], optimizer, epochs=8, precision=precision))
    assert steps[-1].loss < steps[0].loss
    return aware, images


@pytest.mark.parametrize(("bits", "group"), SETTINGS)
def test_finished_is_the_quantized_float_model_to_the_bit(bits: int, group: int | None) -> None:
    aware, images = trained(bits, group)
    before = copy.deepcopy(aware.state_dict())
    small, expected = finish(aware), quantize.weights(behind(aware), bits, group)
    for model in (aware, small, expected):
        model.eval()
    state = small.state_dict()
    assert state.keys() == expected.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in expected.state_dict().items())
    assert torch.equal(small(images), aware(images))
    assert torch.equal(small(images), expected(images))
    # the given model goes on as it was
    assert all(torch.equal(aware.state_dict()[name], value) for name, value in before.items())
    aware(images).sum().backward()
    assert torch.equal(finish(aware)(images), small(images))


def test_training_moves_the_float_weights_and_rounds_them_anew() -> None:
    model, images = support.make("convnet", batch=16)
    before = support.snapshot(model)
    aware = quantize.aware(model, bits=4)
    assert support.unchanged(model, before)
    aware.eval()
    assert torch.equal(aware(images), quantize.weights(model, 4)(images))
    assert {
        n.replace("parametrizations.", "").removesuffix(".original")
        for n in dict(aware.named_parameters())
    } == set(dict(model.named_parameters()))
    batches = [(images, torch.arange(16) % 10)]
    list(train(aware, batches, SGD(lr=0.1).build(aware), schedule=cosine(), epochs=5))
    float_weights = dict(behind(aware).named_parameters())
    for name, weight in weights(aware).items():
        assert not torch.equal(float_weights[name], before[name])
        for channel in weight.flatten(1):
            assert len(channel.unique()) <= 16


@pytest.mark.parametrize(("bits", "group"), SETTINGS)
def test_gradient_is_that_of_the_rounded_weights(bits: int, group: int | None) -> None:
    """Straight through: every float weight gets the gradient of the rounded one in its place.

    Not to the bit: a weight put together from groups has other strides, so other kernels may add
    the same numbers in another order.
    """
    model, images = support.make("convnet", batch=8)
    labels = torch.arange(8)
    aware, rounded = quantize.aware(model, bits, group), copy.deepcopy(model)
    with torch.no_grad():
        for name, weight in weights(aware).items():
            rounded.get_parameter(name).copy_(weight)
    for each in (aware, rounded):
        F.cross_entropy(each(images), labels).backward()
    latent = {
        name.replace("parametrizations.", "").removesuffix(".original"): p.grad
        for name, p in aware.named_parameters()
    }
    assert latent.keys() == dict(rounded.named_parameters()).keys()
    for name, parameter in rounded.named_parameters():
        assert (latent[name] - parameter.grad).norm() <= ROUNDING * parameter.grad.norm()
    full = [latent[name] for name in quantizable(model)]
    assert all(g.any() for g in full)


@pytest.mark.parametrize(("bits", "group"), SETTINGS)
def test_rounding_itself_hands_the_gradient_on_to_the_bit(bits: int, group: int | None) -> None:
    weight, gradient = torch.randn(5, 7, 3, 3, requires_grad=True), torch.randn(5, 7, 3, 3)
    RoundedWeight(bits, group)(weight).backward(gradient)
    assert torch.equal(weight.grad, gradient)


@pytest.mark.parametrize("bits", [2, 3])
def test_training_with_rounding_ends_below_rounding_afterwards(bits: int) -> None:
    """A small teacher is learned in float first; then the same steps with and without rounding."""
    torch.manual_seed(0)
    inputs = torch.randn(256, 12)
    targets = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 4))(inputs).detach()
    model = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 4))

    def fit(model: nn.Module, lr: float, epochs: int) -> nn.Module:
        optimizer = torch.optim.Adam(model.parameters(), lr=lr)
        batches = [(inputs, targets)]
        list(
            train(
                model,
                batches,
                optimizer,
                task=supervised(F.mse_loss),
                schedule=cosine(),
                epochs=epochs,
            )
        )
        return model

    def loss(model: nn.Module) -> float:
        return F.mse_loss(model(inputs), targets).item()

    fit(model, 0.03, 300)
    afterwards = quantize.weights(fit(copy.deepcopy(model), 0.01, 200), bits)
    aware = finish(fit(quantize.aware(model, bits), 0.01, 200))
    assert loss(aware) < 0.6 * loss(afterwards)


def test_trains_in_bf16_and_other_kinds_of_layers_stay_float() -> None:
    aware, images = trained(4, 32, precision="bf16")
    assert all(p.dtype == torch.float32 for p in aware.parameters())
    assert torch.equal(finish(aware).eval()(images), aware.eval()(images))
    vit, images = support.make("vit")
    aware = quantize.aware(vit, 4, keep_float=["heads.head"])
    aware.train()(images).sum().backward()
    attention = aware.encoder.layers[0].self_attention.parametrizations.in_proj_weight
    assert attention.original.grad.abs().sum() > 0
    small = finish(aware.eval())
    assert torch.equal(small.heads.head.weight, vit.heads.head.weight)
    assert support.same(small(images), aware(images))
    with torch.no_grad():
        assert support.same(small(images), aware(images))


def test_an_assigned_weight_is_the_float_one() -> None:
    aware = quantize.aware(nn.Linear(40, 3), 4, 16)
    weight = torch.randn(3, 40)
    aware.weight = weight
    assert torch.equal(aware.parametrizations.weight.original, weight)
    assert not torch.equal(aware.weight, weight)


def test_refuses_bad_input() -> None:
    model = models.mlp(inputs=4, hidden=8)
    with pytest.raises(ValueError, match="bits must be a whole number from 2 to 8, got 1"):
        quantize.aware(model, 1)
    with pytest.raises(ValueError, match="group must be"):
        quantize.aware(model, 4, 0)
    with pytest.raises(ValueError, match="keep_float names no layer"):
        quantize.aware(model, keep_float=["nose"])
    for unfit in (model, quantize.weights(model)):
        with pytest.raises(ValueError, match="make it with quantize.aware first"):
            finish(unfit)
    for again in (quantize.weights, quantize.aware):
        with pytest.raises(ValueError, match="parametrized already"):
            again(quantize.aware(model))
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match="0.weight and 1.weight are one tensor"):
        quantize.aware(tied)
