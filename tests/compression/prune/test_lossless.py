"""Lossless pruning: bounds that hold, channels that do nothing, outputs that stay equal."""

import pytest
import torch
from support import pruning as support
from support.pruning import hard_inputs, same
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.compression.prune import remove_lossless

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


@pytest.mark.parametrize("count", [lambda layer: layer.out_features, lambda layer: 1.0])
def test_dead_rows_of_a_layer_whose_size_counts_stay(count: object) -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.second(F.relu(self.first(x)) * count(self.first)))
            return self.last(x)

    model = support.lively(Counts()).eval()
    with torch.no_grad():
        for layer in (model.first, model.second):
            layer.weight[:4], layer.bias[:4] = 0, -1
    result = remove_lossless(model, torch.zeros(1, 4))
    assert result.removed == (4 if count(model.first) == 8 else 8)
    inputs = torch.randn(8, 4)
    assert same(result.model(inputs), model(inputs))


class Reads(nn.Module):
    """What reads the dead channels is of a kind that no proof looks at."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.first, self.how = nn.Conv2d(3, 8, 1), how
        self.up, self.last = nn.ConvTranspose2d(8, 6, 2, 2), nn.Conv2d(8, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        if self.how == "transposed":
            return self.up(x)
        if self.how == "function":
            return F.conv2d(x, self.last.weight, self.last.bias)
        return self.up(x) if self.training else self.last(x)


@pytest.mark.parametrize("how", ["transposed", "function", "training"])
def test_readers_of_other_kinds_keep_what_they_read(how: str) -> None:
    model, inputs = support.lively(Reads(how)).eval(), torch.rand(2, 3, 4, 4)
    with torch.no_grad():
        model.first.weight[:4], model.first.bias[:4] = 0, 1
        if how == "training":
            model.last.weight[:, 4:6] = 0  # nobody reads it in evaluation
    result = remove_lossless(model, inputs)
    assert same(result.model(inputs), model(inputs))
    assert result.removed == 0


def test_a_tensor_whose_shape_is_asked_may_be_overwritten() -> None:
    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Conv2d(3, 6, 1), nn.Linear(6 * 16, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            batch, height = x.size(0), x.shape[2]
            x = F.relu(x, inplace=True)
            return self.head(x.view(batch, -1)) * height

    model, inputs = support.lively(Asks()).eval(), torch.rand(2, 3, 4, 4)
    with torch.no_grad():
        model.first.weight[:2], model.first.bias[:2] = 0, -1
    result = remove_lossless(model, inputs)
    assert result.removed == 2 and same(result.model(inputs), model(inputs))


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
