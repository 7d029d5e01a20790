"""How much faster can int8 be at best? A roofline for fp32 beside one for int8.

Two things can save time: int8 moves a quarter of the bytes, and instructions for it multiply more
numbers at once. Which of the two is the limit says what int8 is worth on this machine, before a
model is quantized. No model reaches it: the first inputs must be rounded, and small layers do not
fill the units. A model in int8 can still be faster than this says, since its convolutions come with
batch norm, ReLU and sums folded in, while eager layers pass over memory for each.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from labkit.compression.quantize.lowering import SATURATING, int8_kernels
from labkit.measure import Ceiling, flops, predict_seconds, traffic

VECTOR_GAIN = 4.0  # four bytes where one float32 was
SATURATING_GAIN = 4 / 3  # as many, by three instructions: without VNNI there is no single one
MATRIX_GAIN = 2.0  # of AMX over its own bf16


@dataclass(frozen=True)
class Int8Limits:
    """What a roofline allows for one forward pass, and why.

    Attributes:
        fp32, int8: shortest times, in seconds.
        kernels: the int8 instructions; empty if there are none.
        rate: how many times more products a second int8 is taken to have.
        moving: whether moving bytes is the limit of int8.
    """

    fp32: float
    int8: float
    kernels: str
    rate: float
    moving: bool

    @property
    def speed(self) -> float:
        """How many times faster int8 can be by this."""
        return self.fp32 / self.int8

    @property
    def weight_bits(self) -> int:
        """How many bits weights can have, so that no sum is too large for the instructions."""
        return 7 if self.kernels in SATURATING else 8


@torch.no_grad()
def int8_limits(
    model: nn.Module, inputs: Tensor, roof: Ceiling, kernels: str | None = None
) -> Int8Limits:
    """Return the shortest times of a forward pass in fp32 and in int8.

    No probe of the roof multiplies int8, so its rate is what instructions promise: matrix units
    (AMX) make twice as many int8 as bf16 products, vector instructions four times as many as fp32
    products, in three steps instead of one without VNNI. Without any, int8 counts like fp32.

    Args:
        model: float32, in evaluation mode.
        inputs: what it is called with.
        roof: of this machine, from `labkit.measure.ceiling`.
        kernels: the int8 instructions, as `int8_kernels` names them; by default this processor's.
    """
    kernels = int8_kernels() if kernels is None else kernels
    operations, moved = flops(lambda: model(inputs)), traffic(lambda: model(inputs))
    if "amx" in kernels and "bf16" in roof.convolution:
        rate = MATRIX_GAIN * roof.peak("bf16") / roof.peak("fp32")
    elif kernels in SATURATING:
        rate = SATURATING_GAIN
    else:
        rate = VECTOR_GAIN if kernels else 1.0
    computing = predict_seconds(operations / rate, 0, roof)
    moving = predict_seconds(0, moved / 4, roof)
    fp32 = predict_seconds(operations, moved, roof)
    return Int8Limits(fp32, max(computing, moving), kernels, rate, moving > computing)
