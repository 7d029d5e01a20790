"""Sizes of gradients: by hand, and what becomes of them in 16 bits."""

from __future__ import annotations

import math

import pytest
import torch
from support.common import tiny_data, tiny_model
from torch.nn import functional as F

from labkit.measure.formats import FORMATS
from labkit.measure.gradients import fates, gradient_magnitudes


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
