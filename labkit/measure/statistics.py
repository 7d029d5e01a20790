"""How sure are we? Intervals for times and for accuracies.

Times on a shared machine are not bell-shaped: most steps take the same, some take four times as
long. So times are compared in pairs, taken within the same few milliseconds, and summed up by the
median of their ratios, which a burst of noise hardly moves. Its interval comes from the bootstrap:
the pairs are drawn again with replacement, in short runs of neighbours because noise lasts longer
than one step, and the middle 95 % of the medians is the interval.

Accuracies come one a seed, few and roughly bell-shaped: their mean has Student's t interval.

Source: Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979; Künsch, "The Jackknife and
the Bootstrap for General Stationary Observations", 1989 (blocks); Student, 1908.
"""

import math
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray

LEVEL = 0.95
# Below six pairs even the range from the smallest to the largest ratio is no 95 % interval of the
# median: it misses with probability 2 * 0.5**n, which is 6 % for n = 5 and 3 % for n = 6.
FEWEST_PAIRS = 6
RESAMPLES = 2000
"""Bootstrap draws."""
INDICES_AT_ONCE = 2**20
"""Of a bootstrap, 8 bytes each."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval and the number of observations behind it.

    An interval that the observations cannot give is -inf … inf (0 … inf for a ratio).
    """

    value: float
    low: float
    high: float
    n: int

    def __format__(self, spec: str) -> str:
        """Format as value (low to high); an x at the end of `spec` follows the value: ".2fx"."""
        number, unit = (spec[:-1], "x") if spec.endswith("x") else (spec, "")
        value = f"{self.value:{number}}{unit}"
        if math.isinf(self.high):
            return f"{value} (n={self.n})"
        return f"{value} ({self.low:{number}} to {self.high:{number}})"


def median_interval(samples: Sequence[float] | NDArray[Any]) -> Estimate:
    """Return the median of `samples` with its bootstrap interval.

    Args:
        samples: observations in the order in which they were made.

    Raises:
        ValueError: `samples` is empty or holds a value that is not finite.
    """
    values = _observations("samples", samples)
    low, high = -math.inf, math.inf
    if values.size >= FEWEST_PAIRS:
        medians = numpy.concatenate(
            [numpy.median(values[rows], axis=1) for rows in _blocks(values.size)]
        )
        tail = (1 - LEVEL) / 2
        low, high = (float(q) for q in numpy.quantile(medians, (tail, 1 - tail)))
    return Estimate(float(numpy.median(values)), low, high, values.size)


def paired_ratio(baseline: Sequence[float], candidate: Sequence[float]) -> Estimate:
    """Return how many times faster `candidate` is: the median of baseline / candidate.

    Args:
        baseline, candidate: seconds, measured in turn; entry i of both belongs together.

    Raises:
        ValueError: the lengths differ, there are none, or a time is not positive.
    """
    log = median_interval(_log_ratios(baseline, candidate))
    return Estimate(math.exp(log.value), math.exp(log.low), math.exp(log.high), log.n)


def mean_interval(samples: Sequence[float] | NDArray[Any], *, grain: float = 0.0) -> Estimate:
    """Return the mean of `samples` with Student's t interval (one sample gives none).

    Args:
        samples: observations that do not depend on each other.
        grain: the step between the values that a sample can take, if there is one.

    Raises:
        ValueError: `samples` is empty or holds a value that is not finite.
    """
    values = _observations("samples", samples)
    n = values.size
    mean = float(values.mean())
    if n == 1:
        return Estimate(mean, -math.inf, math.inf, n)
    from scipy.stats import t  # half a second to import

    # Values on a grid can all be the same by chance. What they hide is the error of rounding, with
    # a variance of grain**2 / 12 (Sheppard): an interval of no width would claim too much.
    variance = max(float(values.var(ddof=1)), grain**2 / 12)
    half = float(t.ppf((1 + LEVEL) / 2, n - 1)) * math.sqrt(variance / n)
    return Estimate(mean, mean - half, mean + half, n)


def mean_ratio(baseline: Sequence[float], candidate: Sequence[float]) -> Estimate:
    """Return the geometric mean of baseline / candidate over few pairs, with Student's t interval.

    Raises:
        ValueError: as for `paired_ratio`.
    """
    log = mean_interval(_log_ratios(baseline, candidate))
    return Estimate(math.exp(log.value), math.exp(log.low), math.exp(log.high), log.n)


def _observations(name: str, given: Sequence[float] | NDArray[Any]) -> NDArray[numpy.float64]:
    """Return the values as a vector; all statistics go through here."""
    values = numpy.asarray(given, dtype=numpy.float64)
    if values.ndim != 1 or not values.size or not numpy.isfinite(values).all():
        got = f"{values.shape}: {reprlib.repr(given)}"
        raise ValueError(f"{name} must be finite numbers in a row, at least one, got {got}")
    return values


def _log_ratios(baseline: Sequence[float], candidate: Sequence[float]) -> NDArray[numpy.float64]:
    # On the scale of logarithms 2x faster and 2x slower are equally far from "the same".
    slow, fast = _observations("baseline", baseline), _observations("candidate", candidate)
    if slow.size != fast.size:
        raise ValueError(f"baseline and candidate differ in length: {slow.size}, {fast.size}")
    if not ((slow > 0).all() and (fast > 0).all()):
        raise ValueError("baseline and candidate must hold positive numbers")
    logs: NDArray[numpy.float64] = numpy.log(slow / fast)
    return logs


def _blocks(n: int) -> Iterator[NDArray[numpy.int64]]:
    """Yield indices (some, n), RESAMPLES rows in all: each n observations in runs of neighbours.

    In pieces, because all at once are 160 MB for ten thousand steps: too much for a small machine.
    """
    length = max(1, round(n ** (1 / 3)))
    # A fixed seed: the same observations always give the same interval.
    generator = numpy.random.default_rng(0)
    starts = generator.integers(0, n, size=(RESAMPLES, -(-n // length)))
    for some in numpy.array_split(starts, max(1, RESAMPLES * n // INDICES_AT_ONCE)):
        runs = (some[:, :, None] + numpy.arange(length)) % n  # circular: all weigh the same
        yield runs.reshape(len(some), -1)[:, :n]
