"""Mixed precision: which number format the heavy operations of a step run in.

Three formats. fp32 has 8 bits of exponent and 23 of fraction. bf16 keeps the exponent and 7 bits of
fraction: any value that fits fp32 fits, coarsely. fp16 has 5 and 10: finer steps, but everything
below 6e-8 becomes zero, and small gradients are below that. Loss scaling cures it: the loss is
multiplied by 2**16, so every gradient is too, and the optimizer divides them again. When a scaled
gradient overflows to infinity, the step is left out and the scale halved.

Weights, optimizer state and sums stay in fp32; `torch.autocast` casts the inputs of matrix products
and convolutions. Half the bytes is the certain gain. More speed needs hardware that multiplies the
format (a GPU's tensor cores, AMX on some CPUs): elsewhere it is slower. One missing kernel is
enough: on some CPUs the backward pass of an fp16 convolution exists only as a slow reference.

Source: Micikevicius et al., "Mixed Precision Training", 2018; Kalamkar et al., "A Study of BFLOAT16
for Deep Learning Training", 2019.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from labkit.facts import instruction_set


@dataclass(frozen=True)
class Precision:
    """A precision policy: the format of the heavy operations, and whether the loss is scaled.

    Raises:
        ValueError: a format of whole numbers.
    """

    name: str
    dtype: torch.dtype
    scaled: bool = False

    def __post_init__(self) -> None:
        if not self.dtype.is_floating_point:
            raise ValueError(f"dtype must be a floating-point format, got {self.dtype}")

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context in which forward and loss run. For fp32 it does nothing."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(device.type, dtype=self.dtype)

    def scaler(self, device: torch.device) -> torch.amp.GradScaler | None:
        """Return the loss scaler of a training, or None where none is needed."""
        return torch.amp.GradScaler(device.type) if self.scaled else None


PRECISIONS = {
    policy.name: policy
    for policy in (
        Precision("fp32", torch.float32),
        Precision("bf16", torch.bfloat16),
        Precision("fp16", torch.float16, scaled=True),
    )
}


def fast_precision() -> str:
    """Return "bf16" where matrix units multiply it, else "fp32"."""
    on_gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bf16" if on_gpu or "AMX" in instruction_set() else "fp32"


def precision_policy(precision: str | Precision) -> Precision:
    """Return the policy of this name; a policy is returned as it is.

    Raises:
        ValueError: there is none of that name.
    """
    if isinstance(precision, Precision):
        return precision
    if precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise ValueError(f"precision must be one of {known}, or a Precision, got {precision!r}")
    return PRECISIONS[precision]
