"""What is known of a model's channels: units, the places where they meet weights, and groups."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from labkit.compression.prune.trace import Operation
from labkit.measure import flops


@dataclass(frozen=True)
class Place:
    """Where units meet a tensor of the model: index i along `dim` belongs to unit `units[i]`.

    `role` is "makes" (rows of a weight), "reads" (columns of a weight) or "passes" (batch norm,
    depthwise convolution). A place of a model's tensor is noted once, however often it is used.
    """

    tensor: str
    dim: int
    role: str
    units: Tensor


@dataclass(frozen=True)
class Group:
    """Units that meet the same places: channels of the same layers. Named after the first layer."""

    name: str
    units: Tensor
    layers: tuple[str, ...]


@dataclass(frozen=True)
class ChannelGraph:
    """What `channel_graph` found.

    model: a copy in evaluation mode of the model that was looked at.
    example: the inputs it was traced with.
    operations: its forward pass.
    places: where units meet weights.
    groups: name -> group, in the order of the forward pass.
    kept: layer -> why its output channels all stay.
    count: units are numbers below this one (most of those stand for none).
    counted: layer without tensors, such as an instance norm -> units of the channels it takes.
    """

    model: nn.Module
    example: tuple[Tensor, ...]
    operations: list[Operation]
    places: list[Place]
    groups: dict[str, Group]
    kept: dict[str, str]
    count: int
    counted: dict[str, Tensor]

    @cached_property
    def flops(self) -> int:
        """Operations of one forward pass of the example, counted once."""
        with torch.enable_grad():  # attention is then not one fused kernel, which cannot be counted
            return flops(lambda: self.model(*self.example))
