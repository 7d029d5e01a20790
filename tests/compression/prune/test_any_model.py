"""Models that do what nobody thought of: the pruned one equals the masked one, or is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from support import pruning as support
from support.pruning import Model, check, same
from torch import Tensor, nn
from torch.nn import functional as F

from labkit import models
from labkit.compression.prune import (
    channel_graph,
    channels,
    choose,
    magnitude_scores,
    mask_channels,
    remove_channels,
)
from labkit.distributed.parallel.batch_norm import synchronize_batch_norm

FLAT, IMAGES = (5, 6), (2, 3, 8, 8)

# ---- sizes that a forward reads

READS_ITS_SIZE: dict[str, Callable[..., Tensor]] = {
    "divides": lambda _, a, b, c, x: c(F.relu(b(F.relu(a(x)) / a.out_features))),
    "multiplies": lambda _, a, b, c, x: c(F.relu(b(F.relu(a(x)) * b.in_features**-0.5))),
    "of its weight": lambda _, a, b, c, x: c(F.relu(b(F.relu(a(x)) / len(a.weight)))),
    "branches": lambda _, a, b, c, x: c(F.relu(b(a(x) if a(x).shape[1] > 6 else 2 * a(x)))),
    "counts all": lambda _, a, b, c, x: c(F.relu(b(a(x) / a(x).numel()))),
}


@pytest.mark.parametrize("name", READS_ITS_SIZE)
def test_a_layer_whose_size_counts_stays_whole(name: str) -> None:
    model = Model(READS_ITS_SIZE[name], nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3))
    smaller = check(model, torch.randn(FLAT), stays=("layers.0",))
    assert smaller.layers[0].out_features == 8 and smaller.layers[1].out_features < 8


def test_a_size_counts_also_where_weights_of_zero_hide_it_for_now() -> None:
    model = Model(READS_ITS_SIZE["divides"], nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3))
    nn.init.zeros_(model.layers[2].weight)
    assert "layers.0" in channel_graph(model, torch.randn(FLAT)).kept


def test_what_only_the_numbers_of_this_choice_show_is_refused_by_name() -> None:
    """Half of the channels may go, three of eight may not: only the last check can see it."""
    model = Model(
        lambda _, a, b, x: b(a(x) * (1.0 if a.out_features % 4 == 0 else 2.0)),
        nn.Linear(6, 8),
        nn.Linear(8, 3),
    )
    inputs = torch.randn(FLAT)
    graph = channel_graph(support.lively(model).eval(), inputs)
    remove_channels(model, graph, {"layers.0": torch.arange(8) % 2 == 0})
    with pytest.raises(ValueError, match=r"channels of layers.0 cannot be removed.*its forward"):
        remove_channels(model, graph, {"layers.0": torch.arange(8) > 2})


# ---- branches of training only


class Auxiliary(nn.Module):
    """Gives more in training mode: another layer's answer, or the features themselves."""

    def __init__(self, layer: bool) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.aux = nn.Linear(8, 4) if layer else nn.Identity()
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Any:
        x = F.dropout(F.relu(self.norm(self.body(x))), 0.2, self.training)
        return (self.head(x), self.aux(x)) if self.training else self.head(x)


def test_a_branch_of_training_only_is_pruned_with_the_rest() -> None:
    model, inputs = support.lively(Auxiliary(layer=True)), torch.randn(1, 6)  # norms refuse one
    generator = torch.get_rng_state()
    channel_graph(model, inputs)
    assert torch.equal(torch.get_rng_state(), generator)
    smaller = check(model, inputs)
    assert smaller.aux.in_features == smaller.body.out_features < 8
    head, aux = smaller.train()(torch.randn(FLAT))
    assert head.shape == (5, 3) and aux.shape == (5, 4)


def test_what_is_given_out_in_training_alone_stays_whole() -> None:
    with pytest.raises(ValueError, match="body: it is the model's output"):
        channel_graph(Auxiliary(layer=False), torch.randn(1, 6))


def test_googlenet_as_it_comes_trains_on() -> None:
    model = torchvision.models.googlenet(num_classes=10, init_weights=False)
    smaller = channels(model, torch.rand(1, 3, 96, 96), 0.5)
    assert sum(p.numel() for p in smaller.parameters()) < 0.3 * sum(
        p.numel() for p in model.parameters()
    )
    outputs = smaller.train()(torch.rand(2, 3, 96, 96))
    assert [tuple(output.shape) for output in outputs] == [(2, 10)] * 3


def test_a_training_mode_that_cannot_be_followed_is_refused() -> None:
    def forward(self: nn.Module, a: nn.Module, b: nn.Module, x: Tensor) -> Tensor:
        x = a(x)
        return b(-x if self.training and x.sum() > 0 else x)

    with pytest.raises(ValueError, match="in training mode, .*: its forward must not branch"):
        channel_graph(Model(forward, nn.Linear(6, 8), nn.Linear(8, 3)), torch.randn(FLAT))


# ---- classes of somebody else


class NamedConv(nn.Conv2d):
    """Another name."""


class WrittenConv(nn.Conv2d):
    """The same in its own words."""

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight, self.bias, self.stride, self.padding)


class PaddedConv(nn.Conv2d):
    """Asks its weight how much to pad."""

    def forward(self, input: Tensor) -> Tensor:
        high, wide = self.weight.shape[-2:]
        return F.conv2d(
            F.pad(input, (0, wide - 3, high - 3, 0)), self.weight, self.bias, 1, self.padding
        )


class DoubledConv(nn.Conv2d):
    """More than it is called."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class NamedNorm(nn.BatchNorm2d):
    """Another name."""


class ActivatedNorm(nn.BatchNorm2d):
    """With the activation inside, as in timm."""

    def forward(self, input: Tensor) -> Tensor:
        torch._assert(input.ndim == 4, "images")
        mean = self.running_mean if not self.training or self.track_running_stats else None
        return F.relu(
            F.batch_norm(
                input, mean, self.running_var, self.weight, self.bias, self.training, 0.1, self.eps
            )
        )


class DoubledNorm(nn.BatchNorm2d):
    """More than it is called; torch's own forward asks for the number of dimensions."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class NamedLinear(nn.Linear):
    """Another name."""


class OwnLinear(nn.Module):
    """No class of torch at all."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


@pytest.mark.parametrize("conv", [NamedConv, WrittenConv, PaddedConv, DoubledConv])
@pytest.mark.parametrize("norm", [NamedNorm, ActivatedNorm, DoubledNorm])
@pytest.mark.parametrize("linear", [NamedLinear, OwnLinear])
def test_subclasses_and_functions_are_known_by_what_they_do(
    conv: type[nn.Conv2d], norm: type[nn.BatchNorm2d], linear: type[nn.Module]
) -> None:
    layers = [
        conv(3, 8, 3, padding=1),
        norm(8),
        conv(8, 6, 3),
        norm(6),
        nn.Flatten(),
        linear(216, 5),
    ]
    smaller = check(nn.Sequential(*layers), torch.rand(IMAGES))
    assert type(smaller[0]) is conv and smaller[2].out_channels < 6
    assert smaller[1].num_features == smaller[0].out_channels < 8
    assert smaller[5].weight.shape[1] == 36 * smaller[2].out_channels


def test_a_layer_that_changes_its_weight_first_is_left_alone() -> None:
    class Scaled(nn.Conv2d):
        def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return super()._conv_forward(input, weight / weight.shape[1], bias)

    with pytest.raises(ValueError, match="no channel that can be removed"):
        channel_graph(nn.Sequential(Scaled(3, 8, 3), Scaled(8, 2, 3)), torch.rand(IMAGES))


@pytest.mark.parametrize(
    "convert", [synchronize_batch_norm, nn.SyncBatchNorm.convert_sync_batchnorm]
)
def test_synchronized_norms_are_norms(convert: Callable[[nn.Module], nn.Module]) -> None:
    plain, inputs = support.make("convnet")
    wanted = channel_graph(plain, inputs)
    found = channel_graph(convert(models.convnet(width=4)), inputs)
    assert {n: g.layers for n, g in found.groups.items()} == {
        n: g.layers for n, g in wanted.groups.items()
    }


# ---- values never decide

DECIDES: dict[str, Callable[..., Tensor]] = {
    "if": lambda _, a, b, x: b(a(x) if x.sum() > 0 else -a(x)),
    "int": lambda _, a, b, x: b(a(x) * int(x.sum())),
    "float": lambda _, a, b, x: b(a(x) * float(x.mean())),
    "range": lambda _, a, b, x: b(sum(a(x) for _ in range(x.long().max() + 2))),
}


@pytest.mark.parametrize("name", DECIDES)
def test_a_decision_on_values_is_refused(name: str) -> None:
    model = Model(DECIDES[name], nn.Linear(6, 8), nn.Linear(8, 3))
    with pytest.raises(ValueError, match="cannot be traced by torch.fx"):
        channel_graph(model, torch.rand(FLAT))


# ---- families of torchvision

FAMILIES = {
    "squeezenet1_1": 0.6, "shufflenet_v2_x0_5": 0.6, "mnasnet0_5": 0.45,
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_families_of_torchvision_really_shrink(name: str) -> None:
    torch.manual_seed(0)
    model = support.lively(getattr(torchvision.models, name)()).eval()
    inputs = torch.rand(1, 3, 64, 64)
    graph = channel_graph(model, inputs)
    keep = choose(magnitude_scores(graph), 0.5)
    smaller = remove_channels(model, graph, keep)
    with torch.no_grad():
        assert same(smaller(inputs), mask_channels(model, graph, keep)(inputs))
    whole = sum(p.numel() for p in model.parameters())
    assert sum(p.numel() for p in smaller.parameters()) < FAMILIES[name] * whole
