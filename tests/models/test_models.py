"""Shapes, sizes and formats of the networks."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from labkit import models


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_the_conv_net_is_as_small_as_it_says() -> None:
    # stem, three blocks of two 3x3 convolutions, two 1x1 shortcuts, head, seven batch norms
    weights = 16 * 16 + 9 * (2 * 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64)
    weights += 16 * 32 + 32 * 64 + 64 * 10 + 10 + 2 * (16 * 3 + 32 * 2 + 64 * 2)
    assert count(models.convnet()) == weights
    assert 75_000 < weights < 85_000
    with FlopCounterMode(display=False) as counter:
        models.convnet()(torch.randn(1, 1, 28, 28))
    assert 5.0e6 < counter.get_total_flops() < 5.3e6


def test_width_scales_the_parameters_with_its_square() -> None:
    ratio = count(models.convnet(width=32)) / count(models.convnet(width=16))
    assert ratio == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize("size", [8, 28, 33, 64])
def test_any_image_size_and_memory_format(size: int) -> None:
    torch.manual_seed(0)
    model = models.convnet(width=4, channels=3).eval()
    images = torch.randn(2, 3, size, size)
    plain = model(images)
    assert plain.shape == (2, 10)
    turned = model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(turned(images.to(memory_format=torch.channels_last)), plain)


def test_mlp_is_two_linear_layers() -> None:
    assert count(models.mlp(64, 64, 10)) == 64 * 64 + 64 + 64 * 10 + 10


@pytest.mark.parametrize("arguments", [{"width": 0}, {"classes": -1}, {"channels": 0}])
def test_refuses_sizes_that_are_none(arguments: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        models.convnet(**arguments)
    with pytest.raises(ValueError, match="hidden"):
        models.mlp(hidden=0)
