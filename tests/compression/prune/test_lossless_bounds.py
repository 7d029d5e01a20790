"""Interval bounds: no input breaks them, and for one layer they are as tight as can be."""

import math
from collections.abc import Iterator

import pytest
import torch
from support import pruning as support
from support.pruning import HIGH, LOW, hard_inputs
from torch import Tensor, fx, nn
from torch.nn import functional as F

from labkit.compression.prune.intervals import bounds
from labkit.compression.prune.trace import trace
from labkit.facts import threads


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threads(1):
        yield


class Recorder(fx.Interpreter):
    """Run a traced model and keep every tensor as it was made."""

    def __init__(self, model: nn.Module, operations: list) -> None:
        super().__init__(fx.GraphModule(model, operations[0].node.graph))
        self.seen: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.seen[n] = result.clone()
        return result


class Zoo(nn.Module):
    """Every operation that has a rule and is not in the other networks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding="same", dilation=2)
        self.mirror = nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect", groups=2)
        self.norm = nn.BatchNorm2d(6, affine=False)
        self.leaky = nn.LeakyReLU(0.3)
        self.head = nn.Linear(12 * 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.conv(x))
        x = self.norm(F.avg_pool2d(x, 3, 2, 1) - 0.3 * F.silu(F.max_pool2d(x, 2)))
        x = self.leaky(self.mirror(x)) * torch.tanh(x) - F.mish(x)
        x = torch.cat([x, F.elu(2 - x)], dim=1)
        x = F.relu6(F.max_pool2d(x, 2)) + F.hardswish(x.mean((2, 3), keepdim=True))
        return self.head(F.dropout(x, training=self.training).reshape(x.shape[0], -1))


@pytest.mark.parametrize("name", [*support.ALL, "zoo"])
def test_no_input_of_the_range_breaks_a_bound(name: str) -> None:
    if name == "zoo":
        torch.manual_seed(0)
        model, shape = support.lively(Zoo()).eval(), (3, 8, 8)
    else:
        model, shape = support.make(name)[0], support.ALL[name][1]
    copied, operations = trace(model, torch.zeros(1, *shape))
    known = bounds(operations, LOW, HIGH)
    finite = 0
    for inputs in hard_inputs(shape):
        recorder = Recorder(copied, operations)
        with torch.no_grad():
            recorder.run(inputs)
        for node, value in recorder.seen.items():
            found = known[node]
            value = value.double().movedim(found.dim or 0, -1)
            slack = 1e-5 * value.abs().max()
            assert (value >= found.low - slack).all(), node
            assert (value <= found.high + slack).all(), node
            finite += bool(found.low.isfinite().all() and found.high.isfinite().all())
    assert finite >= (10 if name in {"gated", "vit"} else 40)


def test_bounds_of_one_layer_are_reached() -> None:
    layer = support.lively(nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten()))
    _, operations = trace(layer, torch.zeros(1, 3, 3, 3))
    found = bounds(operations, LOW, HIGH)[operations[1].node]
    with torch.no_grad():
        worst = torch.where(layer[0].weight > 0, HIGH, LOW)  # (5, 3, 3, 3): an image each
        best = torch.where(layer[0].weight > 0, LOW, HIGH)
        highest, lowest = (layer(x).diagonal().double() for x in (worst, best))
    torch.testing.assert_close(found.high, highest, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.low, lowest, rtol=1e-5, atol=1e-5)


def test_bounds_of_a_norm_are_reached_with_any_sign_and_variance() -> None:
    norm = support.lively(nn.Sequential(nn.BatchNorm1d(8))).eval()
    norm[0].running_var[0] = 1e-6  # smaller than eps, which then decides
    assert (norm[0].weight < 0).any()
    _, operations = trace(norm, torch.zeros(1, 8))
    found = bounds(operations, LOW, HIGH)[operations[1].node]
    with torch.no_grad():
        ends = norm(torch.tensor([[LOW], [HIGH]]).expand(2, 8)).double()
    torch.testing.assert_close(found.low, ends.amin(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.high, ends.amax(0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(1, 1, 3, padding=1),
        nn.Conv2d(1, 1, 3, padding="same"),
        nn.Conv2d(2, 2, 3, padding=1, groups=2),
        nn.AvgPool2d(3, 1, padding=1),
    ],
    ids=str,
)
def test_a_layer_that_pads_sees_zeros_that_are_outside_the_range(layer: nn.Module) -> None:
    channels = getattr(layer, "in_channels", 1)
    if isinstance(layer, nn.Conv2d):
        nn.init.constant_(layer.weight, 1.0)
        nn.init.zeros_(layer.bias)
    _, operations = trace(nn.Sequential(layer), torch.zeros(1, channels, 6, 6))
    found = bounds(operations, 2.0, 2.0)[operations[1].node]  # constant, until it is padded
    with torch.no_grad():
        seen = layer(torch.full((1, channels, 6, 6), 2.0)).double()
    assert seen.min() < seen.max()
    assert (found.low <= seen.min()).all()
    torch.testing.assert_close(found.high.max(), seen.max())


ACTIVATIONS = [
    nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(), nn.ELU(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(),
    nn.Hardswish(), nn.Sigmoid(), nn.Hardsigmoid(), nn.Tanh(), nn.Hardtanh(), nn.Softplus(),
    nn.Mish(),
]  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("ends", [(-9, 9), (-1, -0.2), (0.3, 2), (-math.inf, 1), (-2, math.inf)])
def test_bounds_of_an_activation_are_tight(activation: nn.Module, ends: tuple) -> None:
    _, operations = trace(nn.Sequential(activation), torch.zeros(1, 2))
    found = bounds(operations, *map(float, ends))[operations[1].node]
    line = torch.linspace(max(ends[0], -30), min(ends[1], 30), 200_001, dtype=torch.float64)
    values = activation(line)
    if isinstance(activation, nn.LeakyReLU) and ends[0] == -math.inf:
        assert float(found.low) == -math.inf  # the only one that falls without end
    else:
        assert float(found.low) == pytest.approx(float(values.min()), abs=1e-6)
    if ends[1] == math.inf and values.max() > 29:
        assert float(found.high) == math.inf
    else:
        assert float(found.high) == pytest.approx(float(values.max()), abs=1e-6)
