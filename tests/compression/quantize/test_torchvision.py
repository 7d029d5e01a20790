"""Static int8 on known architectures with random weights: all in int8, and the same answers."""

from collections.abc import Callable

import pytest
import torch
from support.quantizing import products
from torch import nn
from torchvision.models import VisionTransformer, mobilenet_v3_small, resnet18

from labkit.compression import quantize
from labkit.compression.agreement import decibels
from labkit.compression.quantize.lowering import int8_kernels


def vision_transformer() -> nn.Module:
    """As vit_b_16, but small; the head is zero at first, which would hide all errors."""
    model = VisionTransformer(32, 16, 1, 2, 16, 32, num_classes=10)
    nn.init.normal_(model.heads.head.weight)
    return model


@pytest.mark.parametrize(
    ("build", "kernels"),
    [
        (resnet18, {"int8 conv": 20, "int8 linear": 1}),
        (mobilenet_v3_small, {"int8 conv": 52, "int8 linear": 2}),
        # its attention has swapped dimensions, and one weight for query, key and value
        (vision_transformer, {"int8 conv": 1, "int8 linear": 5}),
    ],
)
def test_known_architectures(build: Callable[[], nn.Module], kernels: dict[str, int]) -> None:
    torch.manual_seed(0)
    model, images = build().train(), torch.randn(8, 3, 32, 32)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches seen
    with torch.no_grad():
        for _ in range(3):  # statistics that fit the weights
            model(torch.randn(8, 3, 32, 32))
        static = quantize.static(model, [(images, None)])
        if int8_kernels():
            assert products(static) == kernels
        more = images[:5]
        wanted, reference = model.eval()(more), static.reference.graph(more)
    # the kernels stand for the reference: they differ by less than both do from the float model
    assert decibels(wanted, static(more)) > 10
    assert decibels(reference, static(more)) > decibels(wanted, reference)


def test_dynamic_int8_takes_the_linear_layers_of_a_vision_transformer() -> None:
    torch.manual_seed(0)
    model, images = vision_transformer().eval(), torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        small, wanted = quantize.dynamic(model, images), model(images[:5])
    if int8_kernels():
        assert products(small) == {"float": 1, "int8 linear": 5}
    assert decibels(wanted, small(images[:5])) > 20
