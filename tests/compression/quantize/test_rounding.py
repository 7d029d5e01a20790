"""Rounding in pieces is torch's own rounding, to the bit, and the graph uses it."""

import pytest
import torch
from support.quantizing import pictures, trained
from torch import Tensor

from labkit.compression import quantize
from labkit.compression.quantize import int8_model, rounding
from labkit.compression.quantize.int8_model import Int8Model
from labkit.compression.quantize.lowering import int8_kernels
from labkit.compression.quantize.rounding import dequantize_per_tensor, quantize_per_tensor
from labkit.compression.quantize.torchao_import import pt2e

ROUNDINGS = {
    f"quantized_decomposed.{kind}_per_tensor.default" for kind in ("quantize", "dequantize")
}
pt2e()  # registers torch's own operations
GRIDS = [(0.0123, 73, 0, 255, torch.uint8), (0.31, -5, -127, 127, torch.int8)]
SHAPES = [(7, 5), (1, 3), (5, 3, 40, 40), (3, 70_000), (0, 4), (3, 0), (9,)]


def values(shape: tuple[int, ...], layout: str = "rows") -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(shape, generator=generator)
    if x.numel() > 4:  # ties, and what lies outside of the grid
        x.view(-1)[:4] = torch.tensor([0.31 * 2.5, -1e9, 1e9, 0.0])
    if layout == "channels last":
        return x.to(memory_format=torch.channels_last)
    return x.transpose(1, 2) if layout == "transposed" else x


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(
    ("shape", "layout"),
    [(shape, "rows") for shape in SHAPES]
    + [((5, 3, 40, 40), "channels last"), ((4, 300, 200), "transposed")],
)
def test_the_same_numbers_in_the_same_places(shape, layout, grid, monkeypatch):
    monkeypatch.setattr(rounding, "PIECE", 5_000)
    x, torchs = values(shape, layout), torch.ops.quantized_decomposed
    scale, zero_point, low, high, dtype = grid
    wanted = torchs.quantize_per_tensor(x, scale, zero_point, low, high, dtype)
    got = quantize_per_tensor(x, scale, zero_point, low, high, dtype)
    assert torch.equal(got, wanted) and got.dtype == dtype and got.stride() == wanted.stride()
    back = torchs.dequantize_per_tensor(wanted, scale, zero_point, low, high, dtype)
    floats = dequantize_per_tensor(wanted, scale, zero_point)
    assert torch.equal(floats, back) and floats.stride() == back.stride()


def test_a_grid_that_is_found_at_each_call():
    x = values((6, 50))
    scale, zero_point = torch.tensor([0.05], dtype=torch.float64), torch.tensor([3])
    wanted = torch.ops.quantized_decomposed.quantize_per_tensor.tensor(
        x, scale, zero_point, 0, 255, torch.uint8
    )
    got = quantize_per_tensor(x, scale, zero_point, 0, 255, torch.uint8)
    assert torch.equal(got, wanted)


def test_what_comes_in_is_left_alone():
    x = values((6, 50))
    before = x.clone()
    integers = quantize_per_tensor(x, 0.1, 0, -127, 127, torch.int8)
    kept = integers.clone()
    dequantize_per_tensor(integers, 0.1, 3)
    assert torch.equal(x, before) and torch.equal(integers, kept)


@pytest.mark.parametrize("kernels", [int8_kernels(), ""])
def test_a_model_rounds_in_pieces_and_computes_the_same(kernels, monkeypatch):
    monkeypatch.setattr(int8_model, "int8_kernels", lambda: kernels)
    model = quantize.static(trained(), pictures(), keep_float=["blocks.1.shortcut"])
    targets = [node.target for node in model.graph.graph.nodes]
    assert quantize_per_tensor in targets and dequantize_per_tensor in targets
    images = pictures(1, seed=5)[0][0]
    monkeypatch.setattr(int8_model, "round_in_pieces", lambda graph: None)
    torchs = Int8Model(model.reference)
    assert set(map(str, targets)) & ROUNDINGS == set()
    assert {str(node.target) for node in torchs.graph.graph.nodes} >= ROUNDINGS
    assert torch.equal(model(images), torchs(images))
