"""Learning-rate schedules: pure functions of how far the training has come.

A schedule maps progress (0 at the first step, 1 at the last) to a factor; the loop multiplies every
parameter group's own learning rate by it. No state, so there is nothing to save, to forget to
step, or to step twice: resuming at step k gives the rate of step k.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy


@runtime_checkable
class Schedule(Protocol):
    """Progress in [0, 1] -> factor of the learning rate."""

    def __call__(self, progress: float) -> float:
        """Return the factor at `progress`."""
        ...


@dataclass(frozen=True)
class cosine:
    """Linear warm-up to the full rate, then half a cosine wave down to `floor`.

    Source: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017,
    equation 5 (without restarts).

    Args:
        warmup: share of the training spent rising from zero, 0 to below 1.
        floor: factor at the end, 0 to 1.

    Raises:
        ValueError: a share or factor out of its range.
    """

    warmup: float = 0.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        _check_share("warmup", self.warmup)
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor must lie in 0 … 1, got {self.floor!r}")

    def __call__(self, progress: float) -> float:
        """Return the factor at `progress`."""
        if progress < self.warmup:
            return progress / self.warmup
        fall = (progress - self.warmup) / (1 - self.warmup)
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * fall)) / 2


@dataclass(frozen=True)
class one_cycle:
    """Up from `start` to 1 at `peak`, then down to `end`, both along half a cosine wave.

    Source: Smith and Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large
    Learning Rates", 2018; the cosine form and the default factors are those of torch's OneCycleLR
    (start 1/25, end 1/25/10,000).

    Args:
        peak: progress at which the rate is highest, above 0 and below 1.
        start, end: factors at the first and the last step.

    Raises:
        ValueError: `peak` or a factor out of its range.
    """

    peak: float = 0.3
    start: float = 1 / 25
    end: float = 1 / 250_000

    def __post_init__(self) -> None:
        _check_share("peak", self.peak)
        for name, value in (("start", self.start), ("end", self.end)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in 0 … 1, got {value!r}")

    def __call__(self, progress: float) -> float:
        """Return the factor at `progress`."""
        if progress < self.peak:
            low, wave = self.start, progress / self.peak + 1
        else:
            low, wave = self.end, (progress - self.peak) / (1 - self.peak)
        return low + (1 - low) * (1 + math.cos(math.pi * wave)) / 2


def _check_share(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"{name} must lie in 0 … 1 (1 excluded), got {value!r}")


def lr_factor(schedule: Callable[[float], float] | None, index: int, total: int) -> float:
    """Return the factor for step `index` of `total`: progress is index / (total - 1).

    Raises:
        ValueError: the schedule gave no number from 0 up.
    """
    if schedule is None:
        return 1.0
    progress = index / (total - 1) if total > 1 else 0.0
    factor: object = schedule(progress)
    if not isinstance(factor, int | float | numpy.number) or not 0 <= factor < math.inf:
        raise ValueError(
            f"schedule must give a number from 0 up, gave {factor!r} at progress {progress:.3g}"
        )
    return float(factor)
