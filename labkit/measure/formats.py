"""Three ways to write a number in bits: how far each reaches, and how fine it is.

A floating-point number is (1 + fraction) * 2**exponent with a sign. Bits given to the exponent buy
range, bits given to the fraction buy fineness, and there are only 16 or 32 in all. So the spacing
of neighbors grows with the value (it is relative), until the exponent runs out: below the smallest
normal number the spacing stays as it is and bits are lost one by one (subnormal), then comes zero;
above the largest number comes infinity.

    fp32   1 + 8 + 23 bits   what weights, sums and optimizer states are kept in
    bf16   1 + 8 + 7         the range of fp32 with two to three decimal digits
    fp16   1 + 5 + 10        eight times finer than bf16, over a far smaller range

Source: IEEE 754-2019 (fp32, fp16); Kalamkar et al., "A Study of BFLOAT16 for Deep Learning
Training", 2019 (bf16).
"""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch

from labkit.table import Table

Fate: TypeAlias = Literal["normal", "subnormal", "zero", "infinite"]


@dataclass(frozen=True)
class Format:
    """A floating-point format, all of it derived from the bits of exponent and fraction."""

    name: str
    dtype: torch.dtype
    exponent_bits: int
    fraction_bits: int

    @property
    def highest(self) -> int:
        """Exponent of the largest numbers."""
        return int(2 ** (self.exponent_bits - 1)) - 1

    @property
    def lowest(self) -> int:
        """Exponent of the smallest normal numbers."""
        return 1 - self.highest

    @property
    def largest(self) -> float:
        """The largest finite number: every fraction bit is set."""
        return (2 - 2.0**-self.fraction_bits) * 2.0**self.highest

    @property
    def smallest_normal(self) -> float:
        """The smallest positive number with all its fraction bits."""
        return 2.0**self.lowest

    @property
    def smallest(self) -> float:
        """The smallest positive number of all: the last fraction bit of a subnormal."""
        return 2.0 ** (self.lowest - self.fraction_bits)

    def spacing(self, value: float) -> float:
        """Return the distance from |value| up to the next number of this format.

        For a value between two numbers it is their distance.

        Raises:
            ValueError: the value is not finite, or beyond the largest number.
        """
        size = abs(value)
        if not size <= self.largest:  # also catches nan
            raise ValueError(f"value must lie within {self.name}'s range, got {value!r}")
        exponent = math.frexp(size)[1] - 1 if size else self.lowest
        return float(2.0 ** (max(exponent, self.lowest) - self.fraction_bits))

    def store(self, value: float) -> float:
        """Return what is left of `value` when it is stored: the nearest number, 0 or infinity."""
        return torch.tensor(value, dtype=torch.float64).to(self.dtype).item()

    def fate(self, value: float) -> Fate:
        """Return what becomes of `value`, not zero, when it is stored.

        Raises:
            ValueError: the value is not a number.
        """
        if math.isnan(value):
            raise ValueError("value must be a number, got nan")
        size = abs(self.store(value))
        if size == 0:
            return "zero"
        if math.isinf(size):
            return "infinite"
        return "normal" if size >= self.smallest_normal else "subnormal"


FORMATS = {
    each.name: each
    for each in (
        Format("fp32", torch.float32, exponent_bits=8, fraction_bits=23),
        Format("bf16", torch.bfloat16, exponent_bits=8, fraction_bits=7),
        Format("fp16", torch.float16, exponent_bits=5, fraction_bits=10),
    )
}


def format_table() -> Table:
    """Return a row for each format: its bits and, from `torch.finfo`, what they amount to."""
    headers = ("format", "sign + exponent + fraction", "largest", "smallest normal")
    rows = []
    for each in FORMATS.values():
        info = torch.finfo(each.dtype)
        bits = f"1 + {each.exponent_bits} + {each.fraction_bits}"
        figures = (info.max, info.tiny, info.smallest_normal * info.eps, info.eps)
        rows.append((each.name, bits, *(f"{figure:.3g}" for figure in figures)))
    return Table((*headers, "smallest of all", "spacing at 1"), tuple(rows))
