"""Operations that treat each channel by itself let it go, whatever they are called."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.pruning import Model, check
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.compression.prune import (
    channels,
)

FLAT, IMAGES = (5, 6), (2, 3, 8, 8)

BETWEEN: dict[str, nn.Module | Callable[[Tensor], Tensor]] = {
    "PReLU": nn.PReLU(8), "one slope": nn.PReLU(), "SELU": nn.SELU(), "CELU": nn.CELU(),
    "threshold": nn.Threshold(0.1, 2.0), "clamp": lambda x: x.clamp(-1, 1),
    "shrink": F.hardshrink, "pad": nn.ZeroPad2d(1), "pad function": lambda x: F.pad(x, (0, 1)),
    "mirror": nn.ReflectionPad2d(2), "instance norm": nn.InstanceNorm2d(8),
    "with scales": nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
    "group norm": nn.GroupNorm(4, 8), "without scales": nn.GroupNorm(4, 8, affine=False),
    "each its own group": nn.GroupNorm(8, 8), "norm of positions": nn.LayerNorm((6, 6)),
    "largest": lambda x: x - x.amax((2, 3), keepdim=True), "logarithm": lambda x: x.abs().log1p(),
    "softmax of positions": lambda x: x.softmax(-1), "where": lambda x: torch.where(x > 0, x, -x),
    "resized": lambda x: F.interpolate(x, size=x.shape[-2:]),
    "turned": lambda x: x.permute(0, 2, 3, 1).contiguous().movedim(-1, 1),
    "stacked": lambda x: torch.stack([x, x.flip(-1)], -1).amax(-1),
    "asked": lambda x: x if x.dim() == 4 and len(x) < 99 else x.mean(),
    "one by one": lambda x: torch.cat([x[i : i + 1] for i in range(x.shape[0])]),
}  # fmt: skip


@pytest.mark.parametrize("name", BETWEEN)
def test_what_treats_each_channel_by_itself_lets_it_go(name: str) -> None:
    between = BETWEEN[name]

    def forward(_: nn.Module, a: nn.Module, b: nn.Module, *rest: Any) -> Tensor:
        *layer, x = rest
        return b((layer[0] if layer else between)(a(x)).amax((2, 3)))

    layers = [between] if isinstance(between, nn.Module) else []
    model = Model(forward, nn.Conv2d(3, 8, 3), nn.Linear(8, 4), *layers)
    smaller = check(model, torch.rand(IMAGES))
    assert smaller.layers[0].out_channels < 8


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("groups", "out"), [(1, 6), (2, 6), (8, 16)])
def test_transposed_convolutions(rank: int, groups: int, out: int) -> None:
    conv, transposed, norm = (
        getattr(nn, f"{name}{rank}d") for name in ("Conv", "ConvTranspose", "BatchNorm")
    )
    inputs = torch.rand(2, 3, *[4] * rank)
    for middle in (transposed(8, out, 2, 2, groups=groups), _by_function(transposed, out, groups)):
        model = nn.Sequential(conv(3, 8, 1), nn.ReLU(), middle, norm(out), conv(out, 2, 1))
        smaller = check(model, inputs)
        assert smaller[0].out_channels == smaller[2].in_channels < 8
        assert smaller[2].out_channels == smaller[3].num_features < out


def _by_function(base: type[nn.Module], out: int, groups: int) -> nn.Module:
    function = getattr(F, "conv_transpose" + base.__name__[-2:])

    class Written(base):
        def forward(self, x: Tensor) -> Tensor:
            return function(x, self.weight, self.bias, self.stride, groups=self.groups)

    return Written(8, out, 2, 2, groups=groups)


class Excite(nn.Module):
    """Squeeze and excitation as its authors wrote it: sizes are read, and written out again."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.layers = nn.Sequential(
            nn.Linear(channels, 4), nn.ReLU(), nn.Linear(4, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        return x * self.layers(self.pool(x).view(b, c)).view(b, c, 1, 1).expand_as(x)


def test_squeeze_and_excitation() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), Excite(8), nn.Conv2d(8, 4, 3), nn.Flatten())
    smaller = check(nn.Sequential(*model, nn.Linear(64, 3)), torch.rand(IMAGES))
    assert smaller[1].layers[2].out_features == smaller[0].out_channels < 8


SHAPES: dict[str, Callable[..., Tensor]] = {
    "squeezed": lambda _, a, b, x: b(a(x).amax((2, 3), keepdim=True).squeeze()),
    "rolled up": lambda _, a, b, x: b(a(x).flatten(2).transpose(1, 2)[:, 0]),
    "of positions": lambda _, a, b, x: b(a(x).permute(0, 2, 3, 1)).mean((1, 2)),
    "divided": lambda _, a, b, x: b(1 / (a(x).mean((2, 3)))),
    "where it is": lambda _, a, b, x: b(F.relu(a(x), inplace=True).mean((2, 3))),
}


@pytest.mark.parametrize("name", SHAPES)
def test_reshaped(name: str) -> None:
    check(Model(SHAPES[name], nn.Conv2d(3, 8, 3), nn.Linear(8, 4)), torch.rand(IMAGES))


def test_positions_flattened_before_the_channels() -> None:
    model = Model(lambda _, a, b, x: b(F.relu(a(x)).flatten(1)), nn.Linear(6, 8), nn.Linear(24, 3))
    check(model, torch.randn(2, 3, 6))


def test_an_upsampling_path_with_shortcuts() -> None:
    def forward(_: nn.Module, a: nn.Module, b: nn.Module, c: nn.Module, x: Tensor) -> Tensor:
        high = F.relu(a(x))
        low = F.interpolate(F.relu(b(F.max_pool2d(high, 2))), size=high.shape[-2:])
        return c(torch.cat([high, low], 1)).mean((2, 3))

    layers = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 1), nn.Conv2d(14, 4, 1)
    check(Model(forward, *layers), torch.rand(IMAGES))


def test_a_default_of_none_may_be_asked_for() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 2.0) -> Tensor:
            x = F.relu(self.first(x)) * scale
            return self.last(x if mask is None else x * mask)

    check(Masked(), torch.randn(FLAT))


def test_a_model_whose_dropout_never_rests_can_be_pruned() -> None:
    model = Model(lambda _, a, b, x: b(F.dropout(a(x))), nn.Linear(6, 8), nn.Linear(8, 3))
    assert channels(model, torch.randn(FLAT), 0.5).layers[0].out_features == 4
