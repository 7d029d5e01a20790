"""Scale, zero point and rounding: the laws, torch and torchao as references, integer products."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from labkit.compression.quantize.affine import (
    Grid,
    grid,
    grid_of,
    integer_linear,
    round_trip,
    to_floats,
    to_integers,
)

BITS = (2, 3, 4, 8)
HALF = 0.5 * (1 + 1e-4)  # half a step, and float32's own rounding


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Lopsided, with slices of very different size."""
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + 0.3
    return values * torch.logspace(-2, 1, shape[0]).view(-1, *[1] * (len(shape) - 1))


# ---- laws


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dim", [None, 0, 1, -1])
def test_error_is_at_most_half_a_step(bits: int, symmetric: bool, dim: int | None) -> None:
    values = numbers(6, 5, 40)
    cells = grid_of(values, bits, symmetric, dim)
    scale, _ = cells.along(values)
    error = (round_trip(values, cells) - values).abs()
    assert (error <= HALF * scale).all()
    assert error.max() > 0.4 * scale.min()  # and half a step is needed
    integers = to_integers(values, cells)
    assert integers.dtype == torch.int32
    assert cells.low <= integers.min() and integers.max() <= cells.high
    assert cells.high - cells.low == 2**bits - 1
    if dim is not None:
        assert cells.scale.shape == (values.shape[dim],)


@pytest.mark.parametrize("bits", BITS)
def test_the_ends_of_the_range_use_all_integers(bits: int) -> None:
    affine = to_integers(numbers(9, 9), grid_of(numbers(9, 9), bits))
    assert (affine.min(), affine.max()) == (0, 2**bits - 1)
    values = torch.linspace(-1, 1 - 2 ** (1 - bits), 1000)  # one step less above zero than below
    symmetric = to_integers(values, grid_of(values, bits, symmetric=True))
    assert (symmetric.min(), symmetric.max()) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@pytest.mark.parametrize(
    "ends", [(-1.0, 2.0), (0.0, 6.0), (0.5, 6.0), (-3.0, -0.5), (-0.1, 300.0), (7.0, 7.0)]
)
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", BITS)
def test_zero_is_exact(ends: tuple[float, float], symmetric: bool, bits: int) -> None:
    cells = grid(*ends, bits=bits, symmetric=symmetric)
    assert cells.low <= cells.zero_point <= cells.high
    assert round_trip(torch.zeros(3), cells).tolist() == [0.0] * 3
    assert to_floats(cells.zero_point, cells) == 0
    assert not symmetric or cells.zero_point == 0
    tensor = torch.tensor(ends)
    assert ((round_trip(tensor, cells) - tensor).abs() <= HALF * cells.scale).all()


def test_what_lies_outside_is_clipped() -> None:
    cells = grid(-1.0, 1.0, bits=4)
    ends = to_floats(torch.tensor([cells.low, cells.high]), cells)
    far = torch.tensor([-9.0, 9.0, float("-inf"), float("inf")])
    assert torch.equal(round_trip(far, cells), ends.repeat(2))


@pytest.mark.parametrize("symmetric", [False, True])
def test_by_channel_is_never_worse(symmetric: bool) -> None:
    values = numbers(12, 50)
    whole, single = (grid_of(values, 4, symmetric, dim) for dim in (None, 0))
    assert (single.scale <= whole.scale).all()
    errors = [(round_trip(values, g) - values).abs() for g in (whole, single)]
    assert errors[1].max() <= errors[0].max()
    assert errors[1].mean() < 0.5 * errors[0].mean()
    for i, row in enumerate(values):  # a channel is on its own
        alone = grid_of(row, 4, symmetric)
        assert alone.scale == single.scale[i] and alone.zero_point == single.zero_point[i]


def test_a_round_trip_changes_nothing_the_second_time() -> None:
    for symmetric in (False, True):
        cells = grid(-1.3, 0.9, bits=5, symmetric=symmetric)
        integers = torch.arange(cells.low, cells.high + 1)
        assert torch.equal(to_integers(to_floats(integers, cells), cells), integers.int())


def test_each_bit_halves_the_step() -> None:
    scales = [grid(-1.0, 3.0, bits).scale.item() * (2**bits - 1) for bits in range(2, 9)]
    assert scales == pytest.approx([4.0] * 7)


@pytest.mark.parametrize("symmetric", [False, True])
def test_nothing_but_zeros_or_one_value(symmetric: bool) -> None:
    for value in (0.0, 2.5, -1e-3, 1e-40, 1e30):
        values = torch.full((3, 4), value)
        for dim in (None, 0):
            cells = grid_of(values, 4, symmetric, dim)
            assert (cells.scale > 0).all() and (1 / cells.scale).isfinite().all()
            back = round_trip(values, cells)
            assert ((back - values).abs() <= HALF * cells.scale.max()).all()
            assert value or not back.any()


# ---- references


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", BITS)
def test_equal_to_torch_bit_for_bit_with_its_gradient(bits: int, symmetric: bool) -> None:
    values = numbers(16, 3000)
    upstream = numbers(16, 3000, seed=1)
    for dim in (None, 0, 1):
        cells = grid_of(values * 0.5, bits, symmetric, dim)  # so that much lies outside
        ours, theirs = (values.clone().requires_grad_() for _ in range(2))
        ends = (cells.low, cells.high)
        if dim is None:
            expected = torch.fake_quantize_per_tensor_affine(
                theirs, cells.scale, cells.zero_point, *ends
            )
        else:
            expected = torch.fake_quantize_per_channel_affine(
                theirs, cells.scale, cells.zero_point, dim, *ends
            )
        got = round_trip(ours, cells)
        assert torch.equal(got, expected)
        got.backward(upstream)
        expected.backward(upstream)
        assert torch.equal(ours.grad, theirs.grad)
        assert 0 < (ours.grad == 0).float().mean() < 0.9


def test_gradient_is_one_inside_and_zero_outside() -> None:
    x = torch.tensor([-2.0, -0.9, 0.0, 0.33, 0.99, 1.5], requires_grad=True)
    round_trip(x, grid(-1.0, 1.0, bits=3)).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("bits", [4, 8])
def test_equal_to_torchao(bits: int) -> None:
    from torchao.quantization.quant_primitives import (
        MappingType,
        choose_qparams_affine,
        dequantize_affine,
        quantize_affine,
    )

    values = numbers(6, 40)
    kinds = {False: MappingType.ASYMMETRIC, True: MappingType.SYMMETRIC_NO_CLIPPING_ERR}
    for symmetric, kind in kinds.items():
        for dim, block in ((None, (6, 40)), (0, (1, 40))):
            ours = grid_of(values, bits, symmetric, dim)
            dtype = torch.int8 if symmetric else torch.uint8
            ends = (ours.low, ours.high)
            scale, zero = choose_qparams_affine(values, kind, block, dtype, *ends)
            assert torch.equal(scale.view_as(ours.scale), ours.scale)
            assert torch.equal(zero.view_as(ours.zero_point).int(), ours.zero_point)
            integers = quantize_affine(values, block, scale, zero, dtype, *ends)
            assert torch.equal(integers.int(), to_integers(values, ours))
            back = dequantize_affine(integers, block, scale, zero, dtype, *ends)
            assert torch.equal(back, round_trip(values, ours))


# ---- products in integers


@pytest.mark.parametrize("weight_symmetric", [False, True])
@pytest.mark.parametrize("x_symmetric", [False, True])
@pytest.mark.parametrize("dim", [None, 0])
def test_integer_product_is_that_of_the_round_tripped(
    dim: int | None, x_symmetric: bool, weight_symmetric: bool
) -> None:
    x, weight, bias = numbers(3, 7, 33), numbers(5, 33, seed=1), numbers(5, seed=2)
    x_grid, w_grid = grid_of(x, 8, x_symmetric), grid_of(weight, 8, weight_symmetric, dim)
    got = integer_linear(x, weight, x_grid, w_grid, bias)
    rounded = round_trip(x, x_grid).double(), round_trip(weight, w_grid).double()
    expected = F.linear(*rounded, bias.double())
    size = F.linear(rounded[0].abs(), rounded[1].abs(), bias.abs().double())
    assert got.dtype == torch.float32 and got.shape == (3, 7, 5)
    assert ((got - expected).abs() <= 1e-6 * size).all()
    without = integer_linear(x, weight, x_grid, w_grid)
    assert torch.equal(without + bias, got)


def test_int32_holds_the_longest_product_and_a_longer_one_is_refused() -> None:
    longest = (2**31 - 1) // (255 * 128)
    x_grid = grid(0.0, 255.0)
    w_grid = grid(-128.0, 127.0, symmetric=True)
    assert x_grid.scale == w_grid.scale == 1
    x, weight = torch.full((1, longest), 255.0), torch.full((2, longest), -128.0)
    weight[1] = 127.0
    exact = to_integers(x, x_grid).long() @ to_integers(weight, w_grid).long().T
    assert exact.min() < -0.99 * 2**31
    assert torch.equal(integer_linear(x, weight, x_grid, w_grid), exact.float())
    longer = torch.full((1, longest + 1), 255.0)
    with pytest.raises(ValueError, match=f"{longest} products at most, got {longest + 1} inputs"):
        integer_linear(longer, longer, x_grid, w_grid)
    shifted = grid_of(weight, 8)  # with zero point 128 - or beyond - the reach is that of uint8
    with pytest.raises(ValueError, match="int32 holds"):
        integer_linear(x, weight, x_grid, shifted)


def test_integer_product_refuses_a_scale_by_input() -> None:
    x, weight = numbers(3, 8), numbers(5, 8)
    with pytest.raises(ValueError, match="got dim 1 and None"):
        integer_linear(x, weight, grid_of(x, dim=1), grid_of(weight))
    with pytest.raises(ValueError, match="got dim None and 1"):
        integer_linear(x, weight, grid_of(x), grid_of(weight, dim=1))


# ---- refusals


def test_refuses_bad_input() -> None:
    nan, ones = float("nan"), torch.ones(2)
    for bits in (1, 9, True):
        with pytest.raises(ValueError, match="bits must be a whole number from 2 to 8, got"):
            grid(0.0, 1.0, bits)
    for ends in ((1.0, 0.0), (nan, 1.0), (0.0, float("inf"))):
        with pytest.raises(ValueError, match="finite with low <= high"):
            grid(*ends)
    with pytest.raises(ValueError, match="not too far apart"):
        grid(-3e38, 3e38)
    with pytest.raises(ValueError, match=r"both \(channels,\), got \(2,\) and \(\)"):
        grid(-ones, 1.0)
    for bad in (torch.tensor([1.0, nan]), torch.tensor([1.0, -float("inf")])):
        with pytest.raises(ValueError, match="finite"):
            grid_of(bad)
    with pytest.raises(ValueError, match="got not-a-number"):
        to_integers(torch.tensor([nan]), grid(0.0, 1.0))
    with pytest.raises(ValueError, match=r"must not be empty, got shape \(0, 3\)"):
        grid_of(torch.ones(0, 3))
    with pytest.raises(TypeError, match="tensor of floats, got torch.int64"):
        grid_of(torch.arange(3))
    with pytest.raises(ValueError, match="dim must be a dimension of shape"):
        grid_of(ones, dim=1)
    with pytest.raises(ValueError, match="must have 2 channels in dimension 0, got shape \\(3,"):
        to_integers(torch.ones(3, 2), grid(-ones, ones))
    with pytest.raises(ValueError, match="dim must be given"):
        replace(grid(0.0, 1.0), dim=0)
    with pytest.raises(ValueError, match="scale and zero_point must both"):
        Grid(ones, torch.tensor(0), 0, 255, 0)
    one, zero = torch.tensor(1.0), torch.tensor(0, dtype=torch.int32)
    for scale in (-one, 0 * one, nan * one):
        with pytest.raises(ValueError, match="scale must be finite and above zero"):
            Grid(scale, zero, 0, 255)
    for zero_point, low, high in ((zero + 0.5, 0, 9), (zero + 10, 0, 9), (zero, 9, 0)):
        with pytest.raises(ValueError, match="whole numbers with low <= zero_point <= high"):
            Grid(one, zero_point, low, high)
    for integers in (torch.tensor([0, 256]), torch.tensor([-1]), torch.tensor([1.0])):
        with pytest.raises(ValueError, match="integers must be whole numbers from 0 to 255"):
            to_floats(integers, grid(0.0, 1.0))
    with pytest.raises(ValueError, match="dim must be a dimension of shape"):
        grid_of(ones, dim=True)
    x, whole = numbers(8, 6), grid_of(numbers(8, 6))
    for weight, bias in ((x[0], None), (x[:, :5], None), (x, torch.ones(8, 1)), (x, torch.ones(3))):
        with pytest.raises(ValueError, match=r"must be \("):
            integer_linear(x, weight, whole, whole, bias)
