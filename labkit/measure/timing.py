"""Time functions against each other, so that a noisy machine hurts all of them alike.

Timing one function to the end and then the next compares two moments of the machine, not two
functions: a neighbor that wakes up in between decides who wins. Here every round runs each
function once, and the order changes from round to round, so that slow moments, the heat of the
processor and the caches that the one before left fall on all of them in equal parts. Samples of
one round belong together: compare them pairwise, with
`labkit.compare.Samples.of_timings(times, quantity).verdict("b")`, not by their averages.

An accelerator works behind Python's back: a call returns before the work is done. So the clock is
read only after the device has finished.

The price: each function finds the caches as the one before left them. That is what a training
step meets too.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from labkit import checks, facts, units


@dataclass(frozen=True)
class Timing:
    """The measured times of one function, in seconds, one sample a round, in order of rounds.

    Raises:
        ValueError: no times.
    """

    name: str
    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.seconds:
            raise ValueError(f"seconds of {self.name!r} is empty")

    @property
    def median(self) -> float:
        """The middle sample, in seconds: one slow round does not move it."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """The interquartile range in seconds: the middle half of the samples lies within it."""
        if self.n < 2:
            return 0.0
        lower, _, upper = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return upper - lower

    @property
    def n(self) -> int:
        """The number of samples."""
        return len(self.seconds)

    def __str__(self) -> str:
        """Return name, median, spread and n, in units that fit."""
        median, spread = units.duration(self.median), units.duration(self.spread)
        return f"{self.name}: {median} (spread {spread}, n {self.n})"


def order_of_round(names: Sequence[str], number: int) -> list[str]:
    """Return who comes when in a round, so that in the long run nobody has an advantage.

    In every 2n rounds of n names each is equally often in each place, and follows each other one
    equally often: who comes after a large model finds other caches than who comes after a small
    one. To let the order rotate is not enough: there everybody has one predecessor.

    Args:
        names: all different; in round 0 they keep this order.
        number: of the round; one below 0 is a round before the first that counts.

    Raises:
        ValueError: no names, or two alike.

    Source: Williams, "Experimental Designs Balanced for the Estimation of Residual Effects of
    Treatments", 1949.
    """
    n = len(names)
    if not 0 < len(set(names)) == n:
        raise ValueError(f"names must be different, at least one, got {names!r}")
    zigzag = [(i + 1) // 2 if i % 2 else -(i // 2) % n for i in range(n)]  # 0, 1, -1, 2, -2, …
    named = dict(zip(zigzag, names, strict=True))
    order = [named[(place + number) % n] for place in zigzag]
    return order[::-1] if number // n % 2 else order


def interleave(
    functions: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 30,
    warmup: int = 3,
    threads: int = 1,
    device: torch.device | str | None = None,
) -> dict[str, Timing]:
    """Time `functions` in rounds, each once a round, in the order of `order_of_round`.

    Args:
        functions: name -> function without arguments; it is called `warmup + rounds` times.
        rounds: samples for each function.
        warmup: untimed rounds first: allocators, caches and kernels that are built on first use.
        threads: torch's threads while measuring; the old number is restored.
        device: where the functions work; waited for before each reading of the clock.
            None is the default device of `labkit.facts`.

    Returns:
        The timings under the same names, in the order of `functions`.

    Raises:
        ValueError: no functions, or `rounds`, `warmup` or `threads` out of range.
        TypeError: a value of `functions` cannot be called.
    """
    where = checks.device_of(device) if device is not None else facts.default_device()
    with facts.threads(threads):
        taken = in_turns(functions, partial(seconds_of, device=where), rounds=rounds, warmup=warmup)
    return {name: Timing(name, tuple(seconds)) for name, seconds in taken.items()}


@torch.no_grad()
def latencies(models: Mapping[str, nn.Module], inputs: Tensor, rounds: int) -> dict[str, Timing]:
    """Return the times of a forward pass of each model, interleaved on one thread.

    Args:
        models: on the device of `inputs`; they are put into evaluation mode, and stay there.
        inputs: a batch.
        rounds: samples for each model.

    Raises:
        ValueError: no models, one that does not take the inputs, or `rounds` out of range.
    """
    calls = {name: partial(model.eval(), inputs) for name, model in models.items()}
    with checks.explaining("a forward pass", inputs):
        return interleave(calls, rounds=rounds, device=inputs.device)


def in_turns(
    functions: Mapping[str, Callable[[], object]],
    clock: Callable[[Callable[[], object]], float],
    *,
    rounds: int,
    warmup: int,
) -> dict[str, list[float]]:
    """Give each function to `clock` once a round, in the order of `order_of_round`.

    Args:
        functions: name -> function without arguments.
        clock: calls a function and returns what that took; several ranks bring one of their own.
        rounds, warmup: as for `interleave`.

    Returns:
        What the clock said, for each function and round.

    Raises:
        ValueError, TypeError: as for `interleave`.
    """
    _check(functions, rounds, warmup)
    samples: dict[str, list[float]] = {name: [] for name in functions}
    # The first round that counts is number 0, as `Samples.of_timings` will number it.
    for number in range(-warmup, rounds):
        for name in order_of_round(list(functions), number):
            try:
                samples[name].append(clock(functions[name]))
            except Exception as error:
                error.add_note(f"raised while timing {name!r}")
                raise
    return {name: taken[warmup:] for name, taken in samples.items()}


def seconds_of(function: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of one call, until the device has done its work."""
    facts.synchronize(device)
    start = time.perf_counter()
    function()
    facts.synchronize(device)
    return time.perf_counter() - start


def _check(functions: Mapping[str, object], rounds: object, warmup: object) -> None:
    if not functions:
        raise ValueError("functions is empty: give at least one name and function to time")
    for name, function in functions.items():
        if not callable(function):
            kind = type(function).__name__
            raise TypeError(f"functions[{name!r}] must be a function to call, got {kind}")
    checks.check_positive_int("rounds", rounds)
    checks.check_whole("warmup", warmup, 0)
