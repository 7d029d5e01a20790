"""Small networks that each hold one thing that makes pruning hard, with weights that matter."""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from labkit import models
from labkit.compression.prune import (
    ChannelGraph,
    channel_graph,
    mask_channels,
    predict_size,
    remove_channels,
)
from labkit.measure import flops


class Concat(nn.Module):
    """Two branches strung together, batch norm over both, flattened into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 6, 3, padding=1)
        self.right = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(10)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Linear(40, 5)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([F.relu(self.left(x)), self.right(x)], dim=1)
        return self.head(torch.flatten(self.pool(F.relu(self.norm(both))), 1))


class Depthwise(nn.Module):
    """Pointwise, depthwise with two outputs a channel, pointwise, squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.Conv2d(3, 8, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.depth = nn.Conv2d(8, 16, 3, padding=1, groups=8, bias=False)
        self.norm2 = nn.BatchNorm2d(16)
        self.squeeze = nn.Conv2d(16, 4, 1)
        self.excite = nn.Conv2d(4, 16, 1)
        self.narrow = nn.Conv2d(16, 6, 1)
        self.head = nn.Linear(6 * 8 * 8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.norm1(self.widen(x)))
        x = F.hardswish(self.norm2(self.depth(x)))
        scale = F.hardsigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        x = F.max_pool2d(self.narrow(scale * x), 2)
        return self.head(x.view(x.size(0), -1))


class Grouped(nn.Module):
    """Convolutions in groups, one inside a residual connection, and a layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.mix = nn.Conv2d(16, 12, 1, groups=2)
        self.twice = nn.Conv2d(12, 12, 1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = x + F.relu(self.grouped(x))
        x = self.twice(F.relu(self.twice(F.relu(self.mix(x)))))
        return self.head(x.mean(dim=(-1, -2)))


class Gated(nn.Module):
    """An activation that turns zero into one half: what is masked before it is not zero behind."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(12, 8), nn.Sigmoid(), nn.Linear(8, 6), nn.Softplus(), nn.Linear(6, 5)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Model(nn.Module):
    """A forward over some layers, written where it is tested."""

    def __init__(self, forward: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = forward, nn.ModuleList(layers)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *self.layers, *inputs)


def vit() -> nn.Module:
    """torchvision's vision transformer, small."""
    return torchvision.models.VisionTransformer(
        image_size=16, patch_size=8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16
    )


SMALL: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convnet": (lambda: models.convnet(width=4), (1, 12, 12)),
    "concat": (Concat, (3, 8, 8)),
    "depthwise": (Depthwise, (3, 16, 16)),
    "grouped": (Grouped, (3, 8, 8)),
    "gated": (Gated, (12,)),
    "vit": (vit, (3, 16, 16)),
}
LARGE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=10), (3, 64, 64)),
    "mobilenet": (lambda: torchvision.models.mobilenet_v3_small(num_classes=10), (3, 64, 64)),
}
ALL = {**SMALL, **LARGE}


def make(name: str, batch: int = 2) -> tuple[nn.Module, Tensor]:
    """Return a network in evaluation mode and an input, the same each time."""
    torch.manual_seed(0)
    build, shape = ALL[name]
    return lively(build()).eval(), torch.rand(batch, *shape)


def lively(model: nn.Module) -> nn.Module:
    """Give every bias and every batch norm numbers that show when they are forgotten."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                if module.affine:
                    module.weight.uniform_(0.5, 1.5)
                    module.weight[1::4] *= -1  # a scale may be negative
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
            if isinstance(module, nn.Linear):
                module.weight.normal_(0, module.in_features**-0.5)
            if getattr(module, "bias", None) is not None and isinstance(module.bias, Tensor):
                module.bias.normal_(0, 0.2)
    return model


def same(a: Tensor, b: Tensor) -> bool:
    """Say whether outputs are equal to 1e-5 of their size."""
    return bool((a - b).abs().max() <= 1e-5 * b.abs().max())


def random_keep(graph: ChannelGraph, seed: int = 0) -> dict[str, Tensor]:
    """About half of each group's units, at least one, without a pattern that could help."""
    generator = torch.Generator().manual_seed(seed)
    keep = {}
    for name, group in graph.groups.items():
        keep[name] = torch.rand(len(group.units), generator=generator) < 0.5
        keep[name][0] |= not keep[name].any()
    return keep


def outputs_zeroed(model: nn.Module, graph: ChannelGraph, keep: dict) -> nn.Module:
    """The masked model as a textbook has it: hooks set what layers and norms give to zero.

    It needs activations that keep zero at zero, and looks at no weight that reads a channel.
    """
    model = copy.deepcopy(model)
    stays = torch.ones(graph.count)
    for name, chosen in keep.items():
        stays[graph.groups[name].units] = chosen.float()
    for place in graph.places:
        layer, _, tensor = place.tensor.rpartition(".")
        if place.role == "reads" or tensor != "weight":
            continue
        mask = stays[place.units]

        def zero(module: nn.Module, _: object, output: Tensor, mask: Tensor = mask) -> Tensor:
            images = output.ndim == 4
            return output * (mask.view(-1, 1, 1) if images else mask)

        model.get_submodule(layer).register_forward_hook(zero)
    return model


def check(model: nn.Module, inputs: Tensor, *, stays: tuple[str, ...] = ()) -> nn.Module:
    """Return the model with about half of each group removed, after a look at all that is said."""
    lively(model).eval()
    graph = channel_graph(model, inputs)
    keep = random_keep(graph)
    smaller = remove_channels(model, graph, keep)
    for some, other in zip(
        tree_leaves(smaller(inputs)),
        tree_leaves(mask_channels(model, graph, keep)(inputs)),
        strict=True,
    ):
        assert same(some, other) and some.isfinite().all()
    predicted = predict_size(graph, keep)
    assert predicted.parameters == sum(p.numel() for p in smaller.parameters())
    assert predicted.flops == flops(lambda: smaller(inputs))
    assert set(stays) <= graph.kept.keys()
    assert predicted.parameters < sum(p.numel() for p in model.parameters())
    return smaller


LOW, HIGH = -0.5, 1.0


def hard_inputs(shape: tuple[int, ...]) -> list[Tensor]:
    """Random inputs from LOW to HIGH, the corners, and noise that jumps between the corners."""
    noise = torch.rand(4, *shape, generator=torch.Generator().manual_seed(2))
    corners = [torch.full((1, *shape), end) for end in (LOW, HIGH)]
    return [LOW + (HIGH - LOW) * noise, (noise > 0.5) * (HIGH - LOW) + LOW, *corners]


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the weights, to see later that they were left alone."""
    return copy.deepcopy(model.state_dict())


def unchanged(model: nn.Module, before: dict[str, Tensor]) -> bool:
    """Say whether a model has the very weights of its snapshot."""
    now = model.state_dict()
    return now.keys() == before.keys() and all(torch.equal(now[k], before[k]) for k in now)
