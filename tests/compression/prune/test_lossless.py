"""Lossless pruning: bounds that hold, channels that do nothing, outputs that stay equal."""

import pytest
import torch
from support import pruning as support
from support.pruning import hard_inputs, same
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.compression.prune import fold_batch_norm, remove_lossless

# ---- planted channels


class Planted(nn.Module):
    """Two convolutions; the second one's kernel and padding decide what may move."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 6, 3, padding=padding, bias=False)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x)))
        return self.head(F.relu(self.second(x)).mean((2, 3)))


@torch.no_grad()
def planted(padding: int) -> Planted:
    torch.manual_seed(0)
    model = support.lively(Planted(padding)).eval()
    model.norm.bias += 1.0  # whatever is not planted is alive
    model.second.weight.abs_()
    model.norm.weight[1] = 0  # a constant above zero
    model.norm.bias[1] = 0.7
    model.norm.weight[2] = 0  # a constant that the ReLU makes zero
    model.norm.bias[2] = -0.7
    model.second.weight[:, 3] = 0  # nobody reads it
    model.head.weight[:, 0] = 0  # nor what the second layer makes of all this first
    model.first.weight[4] = 0  # a row of zeros: a constant through the norm
    model.norm.weight[4] = 1
    model.norm.running_mean[4] = model.first.bias[4] - 1
    return model


def found(result: object, start: str) -> int:
    return sum(f.channels for f in result.findings if f.why.startswith(start))


def test_planted_channels_go_and_the_outputs_stay() -> None:
    model = planted(padding=0)
    before = support.snapshot(model)
    result = remove_lossless(model, torch.zeros(1, 3, 8, 8))
    assert result.model.first.out_channels == 4
    assert result.model.second.out_channels == 5
    assert result.removed == 5
    assert [found(result, why) for why in ("constant", "always zero", "never")] == [2, 1, 2]
    assert result.model.second.bias is not None
    for inputs in hard_inputs((3, 8, 8)):
        assert same(result.model(inputs), model(inputs))
    assert support.unchanged(model, before) and not result.model.training
    assert all(word in str(result) for word in ("first", "always zero", "every input"))


def test_a_constant_stays_where_the_next_layer_pads_with_zeros() -> None:
    model = planted(padding=1)
    result = remove_lossless(model, torch.zeros(1, 3, 8, 8))
    assert result.model.first.out_channels == 6
    assert [found(result, why) for why in ("constant", "always zero", "never", "stays")] == [
        0, 1, 2, 2,
    ]  # fmt: skip
    for inputs in hard_inputs((3, 8, 8)):
        assert same(result.model(inputs), model(inputs))
    # the reason for the rule: moved into the bias, the constant would be wrong at the border
    assert result.model.second.bias is None


def test_a_row_that_goes_frees_the_column_that_only_it_read() -> None:
    torch.manual_seed(0)
    model = support.lively(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU()))
    model = nn.Sequential(*model, nn.Linear(5, 3)).eval()
    with torch.no_grad():
        model[4].weight[:, 2] = 0  # row 2 of the middle layer is not read,
        model[2].weight[[0, 1, 3, 4], 1] = 0  # and only it reads channel 1 of the first
    result = remove_lossless(model, torch.zeros(1, 4))
    assert [layer.out_features for layer in result.model if isinstance(layer, nn.Linear)] == [
        5, 4, 3,
    ]  # fmt: skip
    inputs = torch.randn(8, 4)
    assert same(result.model(inputs), model(inputs))


def test_a_layer_that_does_nothing_keeps_one_channel() -> None:
    model = support.lively(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.fill_(0.5)
    result = remove_lossless(model, torch.zeros(1, 4))
    assert result.model[0].out_features == 1
    assert found(result, "stays: a layer needs one") == 1
    assert same(result.model(torch.randn(3, 4)), model(torch.randn(3, 4)))


def test_a_layer_called_twice_takes_no_constant() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 6), nn.Linear(4, 6)
            self.shared, self.head = nn.Linear(6, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            a, b = F.relu(self.first(x)), F.relu(self.second(x))
            return self.head(self.shared(a) + self.shared(b))

    model = support.lively(Twice())
    with torch.no_grad():
        for layer, constant in ((model.first, 0.5), (model.second, 0.25)):
            layer.weight[:2] = 0
            layer.bias[0], layer.bias[1] = constant, -constant
    result = remove_lossless(model, torch.zeros(1, 4))
    assert result.removed == 1 and found(result, "stays") == 1
    inputs = torch.randn(8, 4)
    assert same(result.model(inputs), model(inputs))


@pytest.mark.parametrize("name", support.ALL)
def test_real_networks_with_a_third_of_the_norms_at_zero(name: str) -> None:
    model, inputs = support.make(name)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight[::3] = 0
    result = remove_lossless(model, inputs)
    shape = support.ALL[name][1]
    with torch.no_grad():
        for images in hard_inputs(shape):
            assert same(result.model(images), model(images))
    # three have no norm; in one, a depthwise layer would need two norms at zero for each channel
    if name not in {"gated", "vit", "grouped", "depthwise"}:
        assert result.removed > 0
        assert sum(p.numel() for p in result.model.parameters()) < sum(
            p.numel() for p in model.parameters()
        )


def test_a_healthy_network_loses_nothing() -> None:
    model, inputs = support.make("gated")
    result = remove_lossless(model, inputs)
    assert result.removed == 0 and result.findings == ()
    assert support.unchanged(result.model, model.state_dict())


# ---- batch norm


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


# ---- refusals


def test_refuses_a_model_that_overwrites_what_it_reads_again() -> None:
    class Overwrites(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            y = F.relu(x, inplace=True)
            return self.head(x + y)

    with pytest.raises(ValueError, match="model overwrites a tensor that is read elsewhere too"):
        remove_lossless(Overwrites(), torch.zeros(1, 4))
