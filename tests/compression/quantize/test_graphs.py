"""Graphs that torchao gets wrong, or leaves in float: int8 is the same function on all of them."""

from collections.abc import Callable

import pytest
import torch
from support.quantizing import products
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.compression import quantize
from labkit.compression.agreement import decibels
from labkit.compression.quantize import exported, lowering
from labkit.compression.quantize.affine import grid_of, integer_linear
from labkit.compression.quantize.lowering import int8_kernels, weight_bits

CONV, LINEAR = (4, 4, 12, 12), (4, 24)


class Net(nn.Module):
    """What a function computes with two convolutions, two norms, two linear layers."""

    def __init__(self, function: Callable[["Net", Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.a, self.b = (nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(2))
        self.m, self.n = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.u, self.v = nn.Linear(24, 24), nn.Linear(24, 24)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def made(function: Callable[[Net, Tensor], Tensor], shape: tuple[int, ...]) -> tuple[Net, Tensor]:
    """Return the net with statistics of its own, and inputs."""
    torch.manual_seed(0)
    net = Net(function)
    for norm in (net.m, net.n):
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
        norm.running_mean = torch.randn(4)
        norm.running_var = torch.rand(4) + 0.2
    return net.eval(), torch.randn(shape)


SHARED = {
    "one convolution, two norms": lambda s, x: s.m(s.a(x)) + s.n(s.a(F.avg_pool2d(x, 1))),
    "one convolution, one norm twice": lambda s, x: s.m(s.a(x)) + s.m(s.a(-x)),
    "with a norm and without": lambda s, x: s.m(s.a(x)) + s.a(-x),
    "its answer with a norm and without": lambda s, x: (y := s.a(x)) + s.m(y),
    "its answer with two norms": lambda s, x: s.m(y := s.a(x)) + s.n(y),
    "one weight in two convolutions": lambda s, x: s.m(s.a(x)) + F.conv2d(x, s.a.weight, padding=1),
    "a norm of a sum": lambda s, x: s.m(s.a(x) + x),
}
SUMS = {
    "a sum with a curve": (lambda s, x: (y := s.v(x)) + F.relu(s.u(y)), LINEAR),
    "the input with a curve": (lambda s, x: x + F.relu(s.u(x)), LINEAR),
    "a curve and a sum": (lambda s, x: F.relu(s.u(x)) + x, LINEAR),
    "two curves": (lambda s, x: F.relu(s.u(x)) + F.relu(s.v(x)), LINEAR),
    "a curve in three dimensions": (lambda s, x: x + F.relu(s.u(x)), (4, 3, 24)),
    "a sum with GELU": (lambda s, x: x + F.gelu(s.u(x)), LINEAR),
    "a sum with a convolution's curve": (lambda s, x: x + F.relu(s.a(x)), CONV),
    "twice a convolution": (lambda s, x: torch.add(x, s.a(x), alpha=2), CONV),
    "minus a convolution": (lambda s, x: torch.add(x, s.a(x), alpha=-1), CONV),
    "a difference": (lambda s, x: x - s.a(x), CONV),
    "twice a linear layer": (lambda s, x: torch.add(y := s.v(x), s.u(y), alpha=2), LINEAR),
    "a scaled sum, then a curve": (lambda s, x: F.relu(torch.add(x, s.u(x), alpha=3)), LINEAR),
    "half of it, in place": (lambda s, x: s.u(x).add_(x, alpha=0.5), LINEAR),
    "both layers, scaled": (lambda s, x: torch.add(s.a(x), s.b(x), alpha=0.5), CONV),
    "a number more": (lambda s, x: s.a(x) + 1, CONV),
    "a number more, from the left": (lambda s, x: 1 + s.u(x), LINEAR),
    "to itself": (lambda s, x: (y := s.a(x)) + y, CONV),
    "to what it read": (lambda s, x: x + s.u(x), LINEAR),
    "twice the same layer": (lambda s, x: s.u(x) + s.u(-x), LINEAR),
    "a vector for all": (lambda s, x: s.a(x) + s.m.bias[:, None, None], CONV),
}
CURVES = {
    "relu6": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, -0.5, 0.7),
    "hardswish": F.hardswish,
    "silu": F.silu,
    "hardswish, in place": lambda x: F.hardswish(x, inplace=True),
    "relu": F.relu,
}


def agree(net: nn.Module, inputs: Tensor, dynamic: bool = False) -> quantize.Int8Model:
    """Quantize, hold the result against the float model and against its own graph."""
    small = quantize.dynamic(net, inputs) if dynamic else quantize.static(net, [(inputs, None)])
    with torch.no_grad():
        wanted, reference = net(inputs.clone()), small.reference.graph(inputs)
    assert decibels(wanted, small(inputs)) > 28
    assert decibels(reference, small(inputs)) > 40
    return small


@pytest.mark.parametrize("name", SHARED)
def test_a_norm_is_folded_where_nothing_else_reads_the_layer(name: str) -> None:
    net, inputs = made(SHARED[name], CONV)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    agree(net, inputs)
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())


@pytest.mark.parametrize("name", SUMS)
def test_sums_are_right(name: str) -> None:
    function, shape = SUMS[name]
    net, inputs = made(function, shape)
    agree(net, inputs)
    if shape != CONV:
        agree(net, inputs, dynamic=True)


@pytest.mark.parametrize("name", CURVES)
def test_curves_after_a_convolution_are_in_its_kernel(name: str) -> None:
    curve = CURVES[name]
    net, inputs = made(lambda s, x: curve(s.n(s.b(curve(s.m(s.a(x)))))).mean((2, 3)), CONV)
    small = agree(net, inputs)
    if int8_kernels():
        named = " ".join(str(node.target) for node in small.graph.graph.nodes)
        assert products(small) == {"int8 conv": 2}
        for left in ("relu", "hard", "silu", "clamp", "exp", "div"):
            assert left not in named


class Own(nn.Conv2d):
    """A subclass with nothing of its own."""


LAYERS = {
    "same": (lambda: nn.Conv2d(4, 6, 3, padding="same"), CONV),
    "same, both sides differ": (lambda: nn.Conv2d(4, 6, (4, 3), padding="same"), CONV),
    "same, dilated": (lambda: nn.Conv2d(4, 6, (2, 4), padding="same", dilation=(1, 3)), CONV),
    "valid": (lambda: nn.Conv2d(4, 6, 3, padding="valid", stride=2), CONV),
    "reflect": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), CONV),
    "circular, same": (lambda: nn.Conv2d(4, 6, 3, padding="same", padding_mode="circular"), CONV),
    "a subclass": (lambda: Own(4, 6, 3), CONV),
    "in groups": (lambda: nn.Conv2d(4, 8, 3, groups=2), CONV),
    "by channel": (lambda: nn.Conv2d(4, 4, 3, groups=4, padding="same"), CONV),
    "one dimension": (lambda: nn.Conv1d(4, 6, 3), (4, 4, 12)),
    "one dimension, same": (lambda: nn.Conv1d(4, 6, 4, padding="same", bias=False), (4, 4, 12)),
    "one dimension, replicate": (
        lambda: nn.Conv1d(4, 6, 3, padding=1, padding_mode="replicate"),
        (4, 4, 12),
    ),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even:UserWarning")
@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_any_spelling_run_in_int8(name: str) -> None:
    torch.manual_seed(0)
    build, shape = LAYERS[name]
    layer = build()
    norm = (nn.BatchNorm1d if len(shape) == 3 else nn.BatchNorm2d)(layer.out_channels)
    for net in (nn.Sequential(layer), nn.Sequential(layer, norm, nn.ReLU(), nn.Flatten())):
        inputs = torch.randn(shape)
        small = agree(net.eval(), inputs)
        if int8_kernels():
            assert products(small) == {"int8 conv": 1}


def test_what_is_wrong_after_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    net, inputs = made(SHARED["one convolution, two norms"], CONV)
    with monkeypatch.context() as broken:
        broken.setattr(exported, "rewrite", lambda graph: None)
        with pytest.raises(ValueError, match="Net with its norms folded is another function: .*dB"):
            quantize.static(net, [(inputs, None)])
    if not int8_kernels():
        return
    monkeypatch.setattr(lowering, "_stumbles", lambda node: False)
    net, inputs = made(SUMS["twice a linear layer"][0], LINEAR)
    for quantized in (quantize.dynamic, lambda net, x: quantize.static(net, [(x, None)])):
        with pytest.raises(ValueError, match="Net in int8 kernels is another function: .*dB"):
            quantized(net, inputs)
    net, inputs = made(SUMS["a sum with a curve"][0], LINEAR)
    with pytest.raises(ValueError, match="Net cannot run in int8 kernels: AssertionError"):
        quantize.dynamic(net, inputs)


def test_infinities_that_the_float_model_has_are_no_difference() -> None:
    net, inputs = made(lambda s, x: s.u(x).masked_fill(x > 1, float("-inf")), LINEAR)
    small = quantize.static(net, [(inputs, None)])
    assert torch.equal(small(inputs).isfinite(), net(inputs).isfinite())


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize("dynamic", [True, False])
def test_the_largest_numbers_give_the_integer_product_by_hand(rows: int, dynamic: bool) -> None:
    """Two products of the largest input and weight do not fit into 16 bits."""
    torch.manual_seed(0)
    x, weight = torch.rand(rows, 64) + 9, torch.rand(16, 64) + 9
    weight[8:] *= -1
    layer, wide = nn.Linear(64, 16, bias=False), nn.Conv2d(64, 16, 1, bias=False)
    layer.weight = nn.Parameter(weight)
    wide.weight = nn.Parameter(weight[:, :, None, None])
    weight_grid = grid_of(weight, weight_bits(), symmetric=True, dim=0)
    by_hand = integer_linear(x, weight, grid_of(x), weight_grid)
    if dynamic:
        found = [quantize.dynamic(layer, x)(x)]
    else:
        pixels = x[..., None, None]
        found = [quantize.static(layer, [(x, None)])(x)]
        found += [quantize.static(wide, [(pixels, None)])(pixels).flatten(1)]
    for small in found:
        torch.testing.assert_close(small, by_hand, rtol=1e-5, atol=1e-2)
