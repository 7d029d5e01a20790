"""Batch norms that are folded leave every output as it was."""

from functools import partial

import pytest
import torch
from support import pruning as support
from support.pruning import same
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.compression.prune import fold_batch_norm
from labkit.distributed.parallel.batch_norm import synchronize_batch_norm


@pytest.mark.parametrize("name", ["convnet", "concat", "depthwise", "resnet18", "mobilenet"])
def test_folded_batch_norm_gives_the_same_outputs(name: str) -> None:
    model, inputs = support.make(name)
    model.train()
    before = support.snapshot(model)
    smaller, folded = fold_batch_norm(model, inputs)
    assert support.unchanged(model, before) and model.training and not smaller.training
    norms = [n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    # what norms the two strung-together branches has no layer of its own to go into
    assert folded == ([] if name == "concat" else norms)
    left = [m for m in smaller.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(left) == len(norms) - len(folded)
    with torch.no_grad():
        assert same(smaller(inputs), model.eval()(inputs))


def test_what_is_read_or_called_twice_is_not_folded() -> None:
    class Twice(nn.Module):
        def __init__(self, how: str) -> None:
            super().__init__()
            self.conv, self.norm, self.how = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), how
            self.other = nn.Conv2d(3, 3, 1)
            if how == "tied":
                self.other.weight = self.conv.weight

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            if self.how == "layer":
                return self.norm(self.conv(y))
            if self.how == "norm":
                return self.norm(self.other(self.norm(y)))
            return self.norm(y) + (y if self.how == "result" else self.other(x))

    for how in ("layer", "norm", "result", "tied"):
        model, inputs = support.lively(Twice(how)).eval(), torch.randn(2, 3, 4, 4)
        smaller, folded = fold_batch_norm(model, inputs)
        assert folded == []
        assert torch.equal(smaller(inputs), model(inputs))


def test_norm_behind_a_linear_layer_is_folded_only_along_its_features() -> None:
    flat = support.lively(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))).eval()
    smaller, folded = fold_batch_norm(flat, torch.randn(3, 4))
    inputs = torch.randn(3, 4)
    assert folded == ["1"] and same(smaller(inputs), flat(inputs))
    rows = support.lively(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))).eval()
    assert fold_batch_norm(rows, torch.randn(3, 6, 4))[1] == []


class Tagged(nn.BatchNorm2d):
    """Another name."""


class Doubled(nn.BatchNorm2d):
    """More than it is called."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class Activated(nn.BatchNorm2d):
    """With the activation inside, as in timm."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.activation = nn.Hardswish()

    def forward(self, input: Tensor) -> Tensor:
        torch._assert(input.ndim == 4, "images")
        mean, variance = self.running_mean, self.running_var
        x = F.batch_norm(
            input, mean, variance, self.weight, self.bias, self.training, 0.1, self.eps
        )
        return self.activation(x)


class Statistics(nn.BatchNorm2d):
    """Normalises by the batch in evaluation too."""

    def forward(self, input: Tensor) -> Tensor:
        mean, variance = self.running_mean, self.running_var
        return F.batch_norm(input, mean, variance, self.weight, self.bias, True, 0.1, self.eps)


class Counts(nn.Module):
    """Asks its norms for more than their result."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6)
        self.second, self.other = nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x))) / self.norm.num_features
        return self.other(self.second(x)).view(len(x), -1)


Plain = nn.BatchNorm2d
Conv, Up = partial(nn.Conv2d, 3, 6, 3), partial(nn.ConvTranspose2d, 3, 6, 3)
FOLDS = {
    "a subclass": (lambda: nn.Sequential(Conv(), Tagged(6)), ["1"]),
    "one that does more": (lambda: nn.Sequential(Conv(), Doubled(6)), ["1"]),
    "with an activation": (lambda: nn.Sequential(Conv(), Activated(6)), ["1"]),
    "one that is called so": (lambda: nn.Sequential(Conv(), Statistics(6)), []),
    "one that is asked": (Counts, ["other"]),
    "synchronized": (lambda: synchronize_batch_norm(nn.Sequential(Conv(), Plain(6))), ["1"]),
    "transposed": (lambda: nn.Sequential(Up(), nn.BatchNorm2d(6)), ["1"]),
    "in groups": (lambda: nn.Sequential(Up(groups=3), nn.BatchNorm2d(6)), []),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDS)
def test_only_what_changes_no_output_is_folded(name: str) -> None:
    build, names = FOLDS[name]
    model, inputs = support.lively(build()).eval(), torch.rand(2, 3, 8, 8)
    smaller, folded = fold_batch_norm(model, inputs)
    assert folded == names
    assert same(smaller(inputs), model(inputs))
    left = sum(p.numel() for p in smaller.parameters())
    assert (left < sum(p.numel() for p in model.parameters())) == bool(names)
