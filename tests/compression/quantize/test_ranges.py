"""Clipping ranges: which ends they choose, and that the least error is the least."""

import pytest
import torch
from torch import Tensor

from labkit.compression.quantize.affine import grid, round_trip
from labkit.compression.quantize.ranges import RANGES, least_error, min_max, percentile


def numbers(*shape: int) -> Tensor:
    """Lopsided, with slices of very different size."""
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(0)) + 0.3
    return values * torch.logspace(-2, 1, shape[0]).view(-1, 1)


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
def test_least_error_is_never_worse_than_the_whole_range(bits: int, symmetric: bool) -> None:
    for values in (numbers(4, 3000), torch.rand(5000), numbers(9, 500).relu(), torch.ones(5)):
        ends = {"least": least_error(values, bits, symmetric), "whole": min_max(values)}
        error = {
            name: (round_trip(values, grid(*e, bits, symmetric)) - values).square().mean()
            for name, e in ends.items()
        }
        assert error["least"] <= error["whole"]
        assert ends["whole"][0] <= ends["least"][0] <= ends["least"][1] <= ends["whole"][1]


@pytest.mark.parametrize("symmetric", [False, True])
def test_one_outlier_is_given_up_only_when_steps_are_few(symmetric: bool) -> None:
    normal = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    values = torch.cat([normal, torch.tensor([40.0])])
    few, many = (least_error(values, bits, symmetric)[1] for bits in (4, 8))
    assert few < 12 and many == 40.0
    assert least_error(normal, 2, symmetric)[1] < least_error(normal, 4, symmetric)[1] < 4


def test_percentile_cuts_both_sides_at_one_distance() -> None:
    values = torch.cat([torch.arange(-50.0, 950.0), torch.tensor([5000.0])])
    assert percentile(values, 1.0) == percentile(values, 1) == min_max(values) == (-50.0, 5000.0)
    assert percentile(values, 1000 / 1001) == (-50.0, 949.0)
    low, high = percentile(values, 0.5)
    assert ((values >= low) & (values <= high)).float().mean() == pytest.approx(0.5, abs=0.001)
    assert low == -50.0 and percentile(values, 0.02)[0] > -15
    for lopsided in (values + 100, -values - 2000):  # zero is not among them
        assert percentile(lopsided, 1.0) == min_max(lopsided)
        low, high = percentile(lopsided, 0.001)
        assert lopsided.min() <= low <= high <= lopsided.max()


def test_every_way_gives_a_range_that_a_grid_takes() -> None:
    assert set(RANGES) == {"min-max", "percentile", "mse"}
    whole = min_max(numbers(9, 500))
    for choose in RANGES.values():
        low, high = choose(numbers(9, 500).to(torch.bfloat16), 8)
        assert isinstance(low, float) and isinstance(high, float)
        assert grid(low, high).scale <= grid(*whole).scale * 1.01


def test_refuses_bad_input() -> None:
    nan = float("nan")
    for choose in RANGES.values():
        for bad in (nan, float("inf")):
            with pytest.raises(ValueError, match="values must be finite"):
                choose(torch.tensor([1.0, bad]), 8)
        with pytest.raises(ValueError, match="values is empty"):
            choose(torch.ones(0), 8)
    for share in (0, 1.1, nan, True):
        with pytest.raises(ValueError, match="share must be a number above 0"):
            percentile(torch.ones(2), share)
    with pytest.raises(ValueError, match="bits must be"):
        least_error(torch.ones(2), bits=9)
