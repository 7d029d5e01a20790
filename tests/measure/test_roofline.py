"""Roofline: the shape of the roof, and where calls stand under one of round numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from labkit.measure import (
    Ceiling,
    Estimate,
    flops,
    predict_seconds,
    standing,
    traffic,
)


def exactly(value: float) -> Estimate:
    return Estimate(value, value, value, 9)


# 100 GFLOP/s over 10 GB/s: the ridge is at 10 FLOP/byte.
ROOF = Ceiling(
    matmul={"fp32": exactly(200.0), "bf16": exactly(1000.0)},
    convolution={"fp32": exactly(100.0)},
    bandwidth=exactly(10.0),
    threads=1,
    device="cpu",
)


def test_the_roof_is_a_slope_and_then_flat():
    for intensity, roof in ((0, 0), (4, 40), (10, 100), (1000, 100)):
        found = standing(intensity * 10**9, 10**9, 1.0, ROOF)
        assert found.attainable == pytest.approx(roof)


def test_left_of_the_ridge_memory_is_the_limit():
    found = standing(flops=2 * 10**9, bytes=10**9, seconds=0.2, ceiling=ROOF)
    assert found.intensity == 2.0
    assert found.achieved == pytest.approx(10.0)
    assert found.attainable == pytest.approx(20.0)
    assert found.fraction == pytest.approx(0.5)
    assert found.bound == "memory"
    assert found.ridge == pytest.approx(10.0)
    assert str(found) == (
        "200 ms, 10 of 20 GFLOP/s attainable (50%): memory-bound, "
        "intensity 2 FLOP/byte, below the ridge at 10"
    )


def test_right_of_the_ridge_computing_is_the_limit():
    found = standing(flops=50 * 10**9, bytes=10**9, seconds=1.0, ceiling=ROOF)
    assert (found.achieved, found.attainable, found.bound) == (50.0, 100.0, "compute")
    assert found.fraction == pytest.approx(0.5)


def test_a_faster_dtype_moves_the_ridge():
    """The same call is compute-bound in fp32 and memory-bound in bf16."""
    work = {"flops": 50 * 10**9, "bytes": 10**9, "seconds": 1.0, "ceiling": ROOF, "kind": "matmul"}
    assert standing(**work).bound == "compute"
    assert standing(**work).fraction == pytest.approx(0.25)
    assert standing(**work).ridge == pytest.approx(20.0)
    assert standing(**work, dtype="bf16").bound == "memory"
    assert standing(**work, dtype="bf16").fraction == pytest.approx(0.1)
    assert standing(**work, dtype="bf16").ridge == pytest.approx(100.0)


@pytest.mark.parametrize("intensity", [0.1, 3, 10, 500])
def test_fraction_is_achieved_over_attainable(intensity: float):
    found = standing(int(intensity * 10**8), 10**8, 3.0, ROOF)
    assert found.fraction == pytest.approx(found.achieved / found.attainable)


def test_a_call_that_takes_the_predicted_time_is_on_the_roof():
    for moved in (10**8, 10**11):
        seconds = predict_seconds(10**10, moved, ROOF)
        assert standing(10**10, moved, seconds, ROOF).fraction == pytest.approx(1.0)


def test_the_prediction_is_the_slower_of_both():
    assert predict_seconds(10**11, 10**9, ROOF) == pytest.approx(1.0)
    assert predict_seconds(10**9, 10**11, ROOF) == pytest.approx(10.0)
    assert predict_seconds(10**12, 0, ROOF, "bf16", "matmul") == pytest.approx(1.0)


def test_a_call_that_only_moves_data_has_a_standing():
    found = standing(flops=0, bytes=10**9, seconds=0.4, ceiling=ROOF)
    assert found.fraction == pytest.approx(0.25)
    assert (found.intensity, found.achieved, found.bound) == (0.0, 0.0, "memory")


def test_a_real_layer_under_the_roof():
    """Elementwise work is memory-bound, a large product compute-bound, on any machine."""
    large = torch.ones(256, 256)
    for call, bound in ((lambda: large @ large, "compute"), (lambda: large + large, "memory")):
        assert standing(flops(call), traffic(call), 1.0, ROOF).bound == bound
    model, images = nn.Conv2d(16, 16, 3, bias=False), torch.ones(4, 16, 10, 10)
    found = standing(flops(lambda: model(images)), traffic(lambda: model(images)), 1.0, ROOF)
    moved = 4 * (4 * 16 * 100 + 16 * 16 * 9 + 4 * 16 * 64)
    assert found.intensity == pytest.approx(2 * 4 * 16 * 64 * 16 * 9 / moved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flops": -1}, "flops.*got -1"),
        ({"bytes": 0}, "bytes.*more than 0, got 0"),
        ({"seconds": 0.0}, "seconds.*got 0.0"),
        ({"seconds": math.nan}, "seconds.*got nan"),
        ({"dtype": "bf16"}, "'bf16' has no convolution ceiling"),
        ({"kind": "fft"}, "kind must be one of"),
    ],
)
def test_bad_input_is_named(change: dict, message: str):
    good = {"flops": 1, "bytes": 1, "seconds": 1.0, "ceiling": ROOF}
    with pytest.raises(ValueError, match=message):
        standing(**{**good, **change})
