"""Dynamic int8: each call finds its own range, and only linear layers take part."""

import pytest
import torch
from support.quantizing import products, stored
from torch import Tensor, nn

from labkit import models
from labkit.compression import quantize
from labkit.compression.agreement import decibels
from labkit.compression.quantize.affine import grid_of, integer_linear
from labkit.compression.quantize.int8_model import Int8Model
from labkit.compression.quantize.lowering import int8_kernels, weight_bits

LAYER = nn.Linear(24, 5)


@pytest.fixture(scope="module")
def layer() -> Int8Model:
    return quantize.dynamic(LAYER, torch.randn(4, 24))


@pytest.mark.parametrize("size", [0.01, 1.0, 1000.0])
def test_one_layer_is_the_integer_product_by_hand_at_any_size(
    layer: Int8Model, size: float
) -> None:
    torch.manual_seed(0)
    inputs = size * torch.randn(7, 24)
    weight, bias = LAYER.weight.detach(), LAYER.bias.detach()
    weight_grid = grid_of(weight, weight_bits(), symmetric=True, dim=0)
    by_hand = integer_linear(inputs, weight, grid_of(inputs), weight_grid, bias)
    torch.testing.assert_close(layer(inputs), by_hand, rtol=1e-4, atol=1e-4 * size)


def test_linear_layers_of_a_transformer_run_in_int8_kernels() -> None:
    torch.manual_seed(0)
    model = models.transformer(vocabulary=32, width=16, depth=1, heads=2, context=8)
    dynamic = quantize.dynamic(model.train(), torch.randint(32, (4, 8)))
    assert model.training and dynamic.reference.kind == "dynamic"
    if int8_kernels():
        assert products(dynamic) == {"int8 linear": 7}
    tokens = torch.randint(32, (9, 8))
    with torch.no_grad():
        assert decibels(model.eval()(tokens), dynamic(tokens)) > 25
        assert decibels(dynamic.reference.graph(tokens), dynamic(tokens)) > 40


def test_convolutions_stay_in_float_and_several_inputs_are_taken() -> None:
    class Two(nn.Module):
        """A picture and a vector."""

        def __init__(self) -> None:
            super().__init__()
            self.see, self.answer = nn.Conv2d(1, 2, 3), nn.Linear(10, 3)

        def forward(self, image: Tensor, vector: Tensor) -> Tensor:
            seen = self.see(image).flatten(1)
            return self.answer(torch.cat([seen, vector], 1))

    model, example = Two(), (torch.randn(3, 1, 4, 4), torch.randn(3, 2))
    dynamic = quantize.dynamic(model, example)
    assert {name for name in stored(dynamic) if ".int8" in name} == {"answer.weight.int8"}
    assert torch.equal(stored(dynamic)["see.weight"], model.see.weight)
    if int8_kernels():
        assert products(dynamic) == {"int8 linear": 1, "float": 1}
    one = tuple(x[:1] for x in example)
    with torch.no_grad():
        assert decibels(model(*one), dynamic(*one)) > 25


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="Conv2d has no linear layers"):
        quantize.dynamic(nn.Conv2d(1, 1, 3), torch.randn(2, 1, 5, 5))
    with pytest.raises(TypeError, match="model must be"):
        quantize.dynamic("model", torch.randn(2, 24))  # type: ignore[arg-type]
    for example in ((), torch.tensor(1.0)):
        with pytest.raises(ValueError, match="example must be"):
            quantize.dynamic(LAYER, example)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Linear cannot be traced by torch.export"):
        quantize.dynamic(LAYER, torch.randn(2, 23))
