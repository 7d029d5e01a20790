"""What a roofline allows for int8, from a roof made by hand."""

import pytest
import torch
from torch import nn

from labkit.compression.quantize import int8_kernels, int8_limits
from labkit.measure import Ceiling, Estimate


def ceiling(fp32: float = 10.0, bf16: float = 60.0, bandwidth: float = 10.0) -> Ceiling:
    rates = {"fp32": Estimate(fp32, fp32, fp32, 9), "bf16": Estimate(bf16, bf16, bf16, 9)}
    return Ceiling(rates, rates, Estimate(bandwidth, bandwidth, bandwidth, 9), 1, "cpu")


@pytest.mark.parametrize(
    ("kernels", "rate"),
    [("amx-int8", 12), ("avx512-vnni", 4), ("avx-vnni", 4), ("avx2", 4 / 3), ("", 1)],
)
def test_limits_are_those_of_the_roof(kernels: str, rate: float) -> None:
    model, inputs = nn.Linear(1000, 500, bias=False), torch.ones(20, 1000)
    operations, moved = 2 * 1000 * 500 * 20, 4 * (1000 * 500 + 20 * 1500)
    found = int8_limits(model, inputs, ceiling(), kernels)
    assert found.rate == rate and not found.moving
    assert found.fp32 == pytest.approx(operations / 10e9)
    assert found.int8 == pytest.approx(operations / 10e9 / rate)
    slow = int8_limits(model, inputs, ceiling(bandwidth=0.1), kernels)
    assert slow.moving and slow.int8 == pytest.approx(moved / 4 / 0.1e9) and slow.speed == 4


def test_by_default_the_instructions_are_this_processor_s() -> None:
    assert int8_limits(nn.Linear(4, 4), torch.ones(2, 4), ceiling()).kernels == int8_kernels()
