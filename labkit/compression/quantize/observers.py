"""What calibration looks at: the extremes of each tensor, and a fair sample of its values.

A range like "least squared error" needs values, and an activation has a million of them a batch.
Kept are the smallest and the largest, exactly, and a sample of at most 65,536, in which every value
seen has the same chance to be (a reservoir: each value draws a lot, the lowest lots stay). The lots
come from a generator of the observer's own, so calibration is repeatable and disturbs no other.

Weights are all there at once: their range is min-max, for each output channel.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from labkit.compression.quantize.affine import grid, grid_of
from labkit.compression.quantize.ranges import RANGES
from labkit.compression.quantize.torchao_import import pt2e

SAMPLE = 65_536
SMALLEST_SCALE = 2.0**-60  # of an activation that was always zero; its reciprocal stays finite


class Reservoir:
    """The smallest and largest of all values given to `add`, and an even sample of them."""

    def __init__(self, size: int = SAMPLE) -> None:
        self.size = size
        self.generator = torch.Generator().manual_seed(0)
        self.values, self.lots = torch.empty(0), torch.empty(0)
        self.ends = torch.empty(0)

    def add(self, tensor: Tensor) -> None:
        """Take the values of a float tensor of any shape into account."""
        values = tensor.detach().float().flatten()
        self.ends = torch.stack(torch.aminmax(torch.cat([self.ends, values])))
        lots = torch.rand(len(values), generator=self.generator)
        if len(self.lots) == self.size:  # only lots below the highest kept have a chance
            lucky = lots < self.lots.max()
            values, lots = values[lucky], lots[lucky]
        self.values, self.lots = torch.cat([self.values, values]), torch.cat([self.lots, lots])
        if len(self.lots) > self.size:
            self.lots, kept = self.lots.topk(self.size, largest=False)
            self.values = self.values[kept]

    def seen(self) -> Tensor:
        """Return the sample, float32, with the extremes if it has lost them."""
        lost = self.ends[~torch.isin(self.ends, self.values)]
        return torch.cat([self.values, lost])


@cache
def classes() -> tuple[Any, Any]:
    """Return the observers of activations and of weights, made when torchao is first needed."""

    class ActivationObserver(pt2e().ObserverBase):  # type: ignore[misc]
        """Notes what passes; turns it into one uint8 scale and zero point."""

        def __init__(self, ranges: str, dtype: torch.dtype, **settings: Any) -> None:
            super().__init__(dtype=dtype)
            self.ranges, self.reservoir = ranges, Reservoir()
            self.qscheme = torch.per_tensor_affine
            self.quant_min, self.quant_max = settings["quant_min"], settings["quant_max"]

        def forward(self, x: Tensor) -> Tensor:
            self.reservoir.add(x)
            return x

        def calculate_qparams(self) -> tuple[Tensor, Tensor]:
            found = grid(*RANGES[self.ranges](self.reservoir.seen(), 8))
            return found.scale.clamp(min=SMALLEST_SCALE), found.zero_point

    class WeightPerChannelObserver(pt2e().ObserverBase):  # type: ignore[misc]
        """Symmetric, with a scale for each output channel, as in `weights`."""

        def __init__(self, dtype: torch.dtype, ch_axis: int, **settings: Any) -> None:
            super().__init__(dtype=dtype)
            self.qscheme, self.ch_axis = torch.per_channel_symmetric, ch_axis
            self.quant_min, self.quant_max = settings["quant_min"], settings["quant_max"]

        def forward(self, x: Tensor) -> Tensor:
            self.weight = x
            return x

        def calculate_qparams(self) -> tuple[Tensor, Tensor]:
            bits = (self.quant_max - self.quant_min).bit_length()
            found = grid_of(self.weight, bits, symmetric=True, dim=self.ch_axis)
            return found.scale, found.zero_point

    return ActivationObserver, WeightPerChannelObserver
