"""Channels that are constant: no input moves them, and what is planted is found."""

import pytest
import torch
from support import pruning as support
from support.pruning import hard_inputs
from torch import Tensor, fx, nn
from torch.nn import functional as F

from labkit.compression.prune.constants import constants
from labkit.compression.prune.trace import Operation, trace


class Recorder(fx.Interpreter):
    """Run a traced model and keep every tensor as it was made."""

    def __init__(self, model: nn.Module, operations: list[Operation]) -> None:
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
        self.norm = nn.BatchNorm2d(6)
        self.leaky = nn.LeakyReLU(0.3)
        self.head = nn.Linear(12 * 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm(self.conv(x)))
        x = F.avg_pool2d(x, 3, 2, 1) - 0.3 * F.silu(F.max_pool2d(x, 2))
        x = self.leaky(self.mirror(x)) * torch.tanh(x) - F.mish(x)
        x = torch.cat([x, F.elu(2 - x)], dim=1)
        x = F.relu6(F.max_pool2d(x, 2)) + F.hardswish(x.mean((2, 3), keepdim=True))
        return self.head(F.dropout(x, training=self.training).reshape(x.shape[0], -1))


def planted(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A network with rows and scales of zero in every layer that has some."""
    torch.manual_seed(0)
    model, shape = Zoo(), (3, 8, 8)
    if name != "zoo":
        model, shape = support.make(name)[0], support.ALL[name][1]
    support.lively(model).eval()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d | nn.Conv2d | nn.Linear):
                layer.weight[::3] = 0
                if layer.bias is not None:
                    layer.bias[0] = 0  # zero, which padding does not harm
    return model, shape


@pytest.mark.parametrize("name", [*support.ALL, "zoo"])
def test_no_input_moves_a_constant(name: str) -> None:
    model, shape = planted(name)
    example = torch.zeros(1, *shape)
    copied, operations = trace(model, example)
    known = constants(copied, operations, (example,))
    assert set(known) == {op.node for op in operations if op.kind in {"conv", "linear"}}
    found = 0
    for inputs in [*hard_inputs(shape), 1e3 * torch.randn(2, *shape)]:
        recorder = Recorder(copied, operations)
        with torch.no_grad():
            recorder.run(inputs)
        for node, values in known.items():
            read = recorder.seen[node.all_input_nodes[0]].double()
            dim = -1 if isinstance(copied.get_submodule(str(node.target)), nn.Linear) else 1
            off = (read.movedim(dim, -1) - values).abs()[..., ~values.isnan()]
            assert (off <= 1e-5 * values.abs().nan_to_num().max()).all(), node
            found += off.numel() > 0
    assert found >= 5


def one(layer: nn.Module, given: Tensor, side: int = 6) -> Tensor:
    """What a layer makes of channels that are constant, or vary where they are nan."""
    image = layer_is_image(layer)
    before = nn.Conv2d(1, len(given), 1) if image else nn.Linear(1, len(given))
    with torch.no_grad():
        before.weight.zero_()
        before.bias.copy_(given)
        before.weight[given.isnan()] = 1.0
        before.bias.nan_to_num_()
    width = getattr(layer, "out_features", getattr(layer, "out_channels", len(given)))
    after = nn.Conv2d(width, 1, 1) if image else nn.Linear(width, 1)
    example = torch.zeros(1, 1, side, side) if image else torch.zeros(1, 1)
    model, operations = trace(nn.Sequential(before, layer, after), example)
    return constants(model, operations, (example,))[operations[3].node]


def layer_is_image(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d | nn.AvgPool2d | nn.MaxPool2d | nn.BatchNorm2d)


NAN = float("nan")


@pytest.mark.parametrize(
    ("layer", "padded"),
    [
        (nn.Conv2d(2, 2, 3), False),
        (nn.Conv2d(2, 2, 3, padding=1), True),
        (nn.Conv2d(2, 2, 3, padding="same"), True),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), False),
        (nn.Conv2d(2, 2, 3, padding=1, groups=2), True),
        (nn.AvgPool2d(3, 1), False),
        (nn.AvgPool2d(3, 1, padding=1), True),
        (nn.MaxPool2d(3, 1, padding=1), False),
    ],
    ids=str,
)
def test_a_layer_that_pads_with_zeros_makes_all_but_zeros_vary(
    layer: nn.Module, padded: bool
) -> None:
    whole = not isinstance(layer, nn.Conv2d) or layer.groups > 1
    assert one(layer, torch.tensor([0.0, 0.0])).isnan().sum() == 0
    found = one(layer, torch.tensor([0.0, 2.0])).isnan().tolist()
    assert found == ([False, padded] if whole else [padded, padded])
    found = one(layer, torch.tensor([0.0, NAN])).isnan().tolist()
    assert found == ([False, True] if whole else [True, True])


def test_only_weights_that_are_zero_hide_what_varies() -> None:
    layer = nn.Linear(3, 4)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1, 2, 0], [1, 2, 3], [0, 0, 0], [0, 0, 1.0]]))
    found = one(layer, torch.tensor([0.5, -1.0, NAN]))
    assert found.isnan().tolist() == [False, True, False, True]
    wanted = [-1.5 + layer.bias[0].item(), layer.bias[2].item()]
    assert found[[0, 2]].tolist() == pytest.approx(wanted)


def test_a_norm_makes_a_constant_of_a_zero_scale_and_keeps_those_there_are() -> None:
    norm = support.lively(nn.Sequential(nn.BatchNorm2d(4)))[0].eval()
    with torch.no_grad():
        norm.weight[0] = 0
        norm.running_var[1] = 1e-6  # smaller than eps, which then decides
        found = one(norm, torch.tensor([NAN, 2.0, NAN, -1.0]))
        values = norm(torch.tensor([7.0, 2.0, 7.0, -1.0]).view(1, 4, 1, 1)).flatten().double()
    assert found.isnan().tolist() == [False, False, True, False]
    torch.testing.assert_close(found[[0, 1, 3]], values[[0, 1, 3]], rtol=1e-5, atol=1e-5)


class Means(nn.Module):
    """A constant feature, averaged over time; and one that a dropout which never rests shakes."""

    def __init__(self, random: bool) -> None:
        super().__init__()
        self.first, self.head, self.random = nn.Linear(4, 6), nn.Linear(6, 2), random
        nn.init.zeros_(self.first.weight[2:])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(self.first(x), 0.5, training=self.random).mean(1))


@pytest.mark.parametrize("random", [False, True])
def test_a_mean_keeps_constants_and_dropout_that_is_always_on_does_not(random: bool) -> None:
    example = torch.zeros(1, 3, 4)
    model, operations = trace(Means(random), example)
    found = constants(model, operations, (example,))[operations[-2].node]
    assert found.isnan().tolist() == [True] * 2 + [random] * 4
    if not random:
        torch.testing.assert_close(found[2:].float(), model.first.bias[2:].detach())


@pytest.mark.parametrize("layer", [nn.Conv2d(2, 2, 3, padding=1), nn.AvgPool2d(3, 1, padding=1)])
def test_padding_counts_also_where_an_image_has_one_pixel(layer: nn.Module) -> None:
    """There a constant is constant, but it would not be in a larger image."""
    assert one(layer, torch.tensor([2.0, 2.0]), side=1).isnan().all()


class Gate(nn.Module):
    """A product with zeros on one side of it."""

    def __init__(self, swapped: bool) -> None:
        super().__init__()
        self.first, self.gate, self.last = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(3, 2)
        self.swapped = swapped
        with torch.no_grad():
            for row, value in ((0, 0.0), (1, 2.0)):
                self.gate.weight[row], self.gate.bias[row] = 0, value

    def forward(self, x: Tensor) -> Tensor:
        gate, x = self.gate(x), self.first(x)
        return self.last(gate * x if self.swapped else x * gate)


@pytest.mark.parametrize("swapped", [False, True])
def test_what_is_multiplied_by_zero_is_zero(swapped: bool) -> None:
    example = torch.zeros(1, 4)
    model, operations = trace(Gate(swapped), example)
    *_, found = constants(model, operations, (example,)).values()
    assert found[0] == 0 and found[1:].isnan().all()


class Attends(nn.Module):
    """What no rule knows stands between: attention, recurrence, and parts of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.heads = nn.Linear(4, 4), nn.MultiheadAttention(4, 2, batch_first=True)
        self.walk, self.last = nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 2)
        nn.init.zeros_(self.first.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        seen, _ = self.heads(x, x, x)
        steps, (_, cell) = self.walk(seen)
        left, right = steps.chunk(2, dim=1)
        return self.last(left + right + cell.permute(1, 0, 2))


def test_what_has_no_rule_is_taken_to_vary() -> None:
    example = torch.zeros(1, 4, 4)
    model, operations = trace(Attends(), example)
    first, last = constants(model, operations, (example,)).values()
    assert first.isnan().all() and last.isnan().all()


ACTIVATIONS = [
    nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(), nn.ELU(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(),
    nn.Hardswish(), nn.Sigmoid(), nn.Hardsigmoid(), nn.Tanh(), nn.Hardtanh(), nn.Softplus(),
    nn.Mish(), nn.SELU(), nn.CELU(), nn.Threshold(0.5, 3.0), nn.Threshold(-1.0, 3.0),
]  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_an_activation_maps_constants_and_wakes_nothing_that_varies(activation: nn.Module) -> None:
    given = torch.tensor([-9.0, -0.7, 0.0, 2.0, NAN]).repeat(7)  # long enough for vector units
    found = one(activation, given)
    torch.testing.assert_close(
        found, activation(given.double()).where(~given.isnan(), NAN), equal_nan=True
    )
