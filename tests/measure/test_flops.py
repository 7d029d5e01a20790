"""FLOPs: counts against closed forms."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit import models
from labkit.measure import flops, step_flops


def linear(batch: int, inputs: int, outputs: int) -> int:
    return 2 * batch * inputs * outputs


def labels(count: int) -> torch.Tensor:
    return torch.zeros(count, dtype=torch.int64)


def forward_and_backward(model: nn.Module, images: torch.Tensor) -> tuple[int, int]:
    forward = flops(lambda: model(images))
    return forward, flops(lambda: model(images).sum().backward()) - forward


@pytest.mark.parametrize(("batch", "inputs", "outputs"), [(1, 3, 5), (7, 64, 10)])
def test_linear(batch: int, inputs: int, outputs: int):
    layer, images = nn.Linear(inputs, outputs), torch.randn(batch, inputs)
    forward, backward = forward_and_backward(layer, images)
    assert forward == linear(batch, inputs, outputs)
    assert backward == forward  # the gradient of the weight; the input needs none
    _, backward = forward_and_backward(layer, images.requires_grad_())
    assert backward == 2 * forward


@pytest.mark.parametrize(
    ("arguments", "out_size"),
    [
        ({"kernel_size": 3, "padding": 1}, 10),
        ({"kernel_size": 3, "stride": 2}, 4),
        ({"kernel_size": 1}, 10),
        ({"kernel_size": 3, "padding": 1, "groups": 4}, 10),
        ({"kernel_size": 3, "padding": 1, "groups": 8}, 10),  # depthwise
    ],
)
def test_convolution(arguments: dict[str, int], out_size: int):
    layer = nn.Conv2d(8, 16, **arguments)
    images = torch.randn(2, 8, 10, 10, requires_grad=True)
    forward, backward = forward_and_backward(layer, images)
    taps = arguments["kernel_size"] ** 2 * 8 // arguments.get("groups", 1)
    assert forward == 2 * (2 * 16 * out_size**2) * taps
    assert backward == 2 * forward


def test_transposed_convolution():
    layer = nn.ConvTranspose2d(8, 4, 3, stride=2)
    forward, backward = forward_and_backward(layer, torch.randn(2, 8, 5, 5, requires_grad=True))
    assert forward == 2 * (2 * 8 * 5**2) * (4 * 9)  # each input number meets each tap once
    assert backward == 2 * forward


def test_attention_is_counted_on_a_cpu():
    query, key, value = (torch.randn(2, 4, n, 8, requires_grad=True) for n in (16, 12, 12))

    def attend() -> torch.Tensor:
        return F.scaled_dot_product_attention(query, key, value)

    product = 2 * (2 * 4) * 16 * 12 * 8  # of one matrix product
    assert flops(attend) == 2 * product
    assert flops(lambda: attend().sum().backward()) == (2 + 5) * product


def test_a_step_is_three_forwards_less_the_first_input_gradient():
    widths = [6, 32, 16, 10]
    layers = [linear(8, a, b) for a, b in pairwise(widths)]
    model = nn.Sequential(
        nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 10)
    )
    assert step_flops(model, torch.randn(8, 6), labels(8)) == 3 * sum(layers) - layers[0]


def test_a_step_of_convolutions():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 3, stride=2, padding=1),
        nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4 * 4, 10),
    )  # fmt: skip
    first = 2 * 5 * 4 * 64 * 9
    rest = 2 * 5 * 8 * 16 * 4 * 9 + linear(5, 128, 10)
    assert step_flops(model, torch.randn(5, 1, 8, 8), labels(5)) == 2 * first + 3 * rest


def test_a_step_of_a_language_model_takes_its_own_loss():
    torch.manual_seed(0)
    model = models.transformer(50, width=16, depth=1, heads=2, context=8)
    tokens = torch.randint(50, (3, 9))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    forward = flops(lambda: model(inputs))
    counted = step_flops(model, inputs, targets, models.next_token_loss)
    assert counted == pytest.approx(3 * forward, rel=0.05)  # attention is counted a little dearer
    expected = r"failed on int64 \(3, 8\), int64 \(3, 8\): RuntimeError: Expected target size"
    with pytest.raises(ValueError, match=expected):
        step_flops(model, inputs, targets)


def test_frozen_layers_save_their_weight_gradients():
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 10))
    model[0].requires_grad_(False)
    assert step_flops(model, torch.randn(8, 6), labels(8)) == linear(8, 6, 6) + 2 * linear(8, 6, 10)


def test_precision_and_memory_format_do_not_change_the_count():
    model, images = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), torch.randn(2, 3, 8, 8)
    plain = step_flops(model, images, labels(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert step_flops(model, images, labels(2)) == plain
    last = torch.channels_last
    model, images = model.to(memory_format=last), images.to(memory_format=last)
    assert step_flops(model, images, labels(2)) == plain
    with torch.no_grad():
        assert step_flops(model, images, labels(2)) == plain


def test_resnet18_at_64_pixels():
    """Published: 1.814 G multiply-adds at 224 pixels, of which 0.512 M in the last layer."""
    from torchvision.models import resnet18

    model = resnet18().eval()
    with torch.no_grad():
        counted = flops(lambda: model(torch.randn(1, 3, 64, 64)))
    assert counted / 2 == pytest.approx((1.814e9 - 512e3) * (64 / 224) ** 2 + 512e3, rel=1e-3)
    first = 2 * 64 * 3 * 49 * 32**2
    assert step_flops(model, torch.randn(2, 3, 64, 64), labels(2)) == 2 * (3 * counted - first)


def test_the_step_leaves_no_trace():
    model = nn.Sequential(nn.Linear(4, 10), nn.BatchNorm1d(10), nn.Dropout())
    model[0].weight.grad = torch.ones(10, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    step_flops(model, torch.ones(8, 4), labels(8))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(model[0].weight.grad, torch.ones(10, 4))
    assert model[0].bias.grad is None
    assert torch.equal(torch.get_rng_state(), random)


def test_fused_kernels_are_refused_and_not_counted_as_nothing():
    with pytest.raises(ValueError, match="fused kernel mkldnn_rnn_layer.*LSTMCell"):
        flops(lambda: nn.LSTM(8, 16)(torch.randn(5, 2, 8)))
    encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    with (
        torch.no_grad(),
        pytest.raises(ValueError, match=r"_transformer_encoder_layer_fwd.*training"),
    ):
        flops(lambda: encoder(torch.randn(2, 5, 16)))
    projections, attention = 4 * linear(10, 16, 16), 2 * 2 * (2 * 2) * 5 * 5 * 8
    assert flops(lambda: encoder.train()(torch.randn(2, 5, 16))) == (
        projections + attention + 2 * linear(10, 16, 32)
    )


def test_bad_input_is_named():
    with pytest.raises(TypeError, match="function.*got 3"):
        flops(3)
    with pytest.raises(TypeError, match="model must be.*got <function"):
        step_flops(lambda x: x, torch.ones(1, 1), labels(1))
    with pytest.raises(ValueError, match="nothing to train"):
        step_flops(nn.ReLU(), torch.ones(1, 1), labels(1))
