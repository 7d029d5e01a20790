"""Which channels go together, which stay, and what is refused."""

import pytest
import torch
from support import pruning as support
from support.pruning import outputs_zeroed, random_keep, same
from torch import Tensor, nn
from torch.nn import functional as F

from labkit import models
from labkit.compression.prune import channel_graph, mask_channels, remove_channels

# ---- which channels go together


def test_groups_of_a_residual_network_are_those_found_by_hand() -> None:
    model, inputs = support.make("convnet")
    graph = channel_graph(model, inputs)
    assert {name: (len(g.units), g.layers) for name, g in graph.groups.items()} == {
        "stem": (4, ("stem", "blocks.0.conv2")),
        "blocks.0.conv1": (4, ("blocks.0.conv1",)),
        "blocks.1.conv1": (8, ("blocks.1.conv1",)),
        "blocks.1.conv2": (8, ("blocks.1.conv2", "blocks.1.shortcut")),
        "blocks.2.conv1": (16, ("blocks.2.conv1",)),
        "blocks.2.conv2": (16, ("blocks.2.conv2", "blocks.2.shortcut")),
    }
    assert graph.kept == {"head": "it is the model's output"}


def test_groups_of_concatenation_depthwise_and_grouped_layers() -> None:
    groups = {
        name: {n: len(g.units) for n, g in channel_graph(*support.make(name)).groups.items()}
        for name in ("concat", "depthwise", "grouped")
    }
    assert groups["concat"] == {"left": 6, "right": 4}
    # two outputs of each depthwise channel, so two channels of the excitation stay together
    assert groups["depthwise"] == {"widen": 8, "squeeze": 4, "narrow": 6}
    # a residual connection round four groups: one channel of each goes at a time; so with two
    assert groups["grouped"] == {"stem": 4, "mix": 6}


def test_attention_keeps_the_residual_stream_and_says_so() -> None:
    graph = channel_graph(*support.make("vit"))
    assert [group.layers for group in graph.groups.values()] == [
        (f"encoder.layers.encoder_layer_{i}.mlp.0",) for i in (0, 1)
    ]
    assert "conv_proj" in graph.kept


class Odd(nn.Module):
    """Two layers with an operation between them that is easily got wrong."""

    def __init__(self, operation: object) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.second = nn.Linear(8, 8)
        self.last = nn.Linear(8, 3)
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        x = self.operation(F.relu(self.first(x)))
        return self.last(F.relu(self.second(x)))


ODD = {
    "divides by the number of channels": lambda x: x / x.shape[1],
    "scales by the number of channels": lambda x: x * x.size(-1) ** -0.5,
    "softmax over channels": lambda x: x.softmax(-1),
    "turns the channels round": lambda x: x.flip(1),
    "shuffles the channels": lambda x: x.view(-1, 2, 4).transpose(1, 2).reshape(-1, 8),
    "normalizes over channels": lambda x: F.layer_norm(x, (8,)),
    "adds the mean over channels": lambda x: x + x.mean(1, keepdim=True),
    "adds a number for each channel": lambda x: x + torch.arange(8.0),
    "takes some of the channels": lambda x: torch.cat([x[:, :4], x[:, 4:]], 1),
    "strings together along the batch": lambda x: torch.cat([x, 2 * x]),
    "fixes the size": lambda x: x.view(-1, 8),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_not_understood_stays_whole(name: str) -> None:
    torch.manual_seed(0)
    model, inputs = support.lively(Odd(ODD[name])).eval(), torch.randn(4, 6)
    graph = channel_graph(model, inputs)
    keep = random_keep(graph)
    smaller = remove_channels(model, graph, keep)
    assert same(smaller(inputs), outputs_zeroed(model, graph, keep)(inputs))
    assert smaller.second.out_features < 8
    if name != "strings together along the batch":
        assert smaller.first.out_features == 8
        assert "first" in graph.kept


@pytest.mark.parametrize("frozen_first", [False, True])
def test_what_is_added_to_a_frozen_channel_stays_too(frozen_first: bool) -> None:
    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen, self.free, self.head = (nn.Linear(6, 6) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            frozen, free = self.frozen(x), self.free(x)
            weights = frozen.softmax(-1)
            both = frozen + free if frozen_first else free + frozen
            return self.head(both) * weights

    with pytest.raises(ValueError, match="frozen: softmax needs it whole; free: softmax needs it"):
        channel_graph(Added(), torch.ones(1, 6))


def test_tied_weights_stay_tied() -> None:
    model = support.lively(nn.Sequential(*(nn.Linear(8, 8) for _ in range(3)), nn.Linear(8, 3)))
    model[2].weight = model[1].weight
    inputs = torch.randn(4, 8)
    graph = channel_graph(model, inputs)
    keep = random_keep(graph)
    smaller = remove_channels(model, graph, keep)
    assert smaller[2].weight is smaller[1].weight
    assert smaller[2].weight.shape == (smaller[0].out_features,) * 2
    assert smaller[0].out_features < 8
    assert same(smaller(inputs), mask_channels(model, graph, keep)(inputs))


def test_a_weight_that_is_used_by_hand_stays_whole() -> None:
    class ByHand(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 8)
            self.last = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.second(F.relu(self.first(x)))
            return self.last(F.relu(x @ self.second.weight.t()))

    model, inputs = support.lively(ByHand()), torch.randn(4, 6)
    with pytest.raises(ValueError, match="no channel that can be removed"):
        channel_graph(model, inputs)


# ---- refusals


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else x


def test_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="cannot be traced by torch.fx.*must not branch"):
        channel_graph(Branches(), torch.ones(1, 4))
    with pytest.raises(ValueError, match="example must be an input that the model takes"):
        channel_graph(models.mlp(), torch.ones(1, 3))
    with pytest.raises(ValueError, match="example must be an input .* takes 2 positional arg"):
        channel_graph(models.convnet(4), (torch.ones(1, 1, 12, 12),) * 2)
    with pytest.raises(ValueError, match="no channel that can be removed .*0: it is the model's"):
        channel_graph(nn.Sequential(nn.Linear(3, 3)), torch.ones(1, 3))
    with pytest.raises(TypeError, match="model must be of type Module, got <function"):
        channel_graph(lambda x: x, torch.ones(1))
