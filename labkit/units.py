"""Numbers as people read them: a few digits that count, in the unit that fits.

A measurement is seldom known to more than three digits; more of them look like knowledge and are
noise. All rooms write their numbers here, so that the same time or size looks the same everywhere.
"""

from collections.abc import Sequence
from math import floor, isfinite, log10

# (from this many on, divide by, name): a time of 90 s is read more easily than one of 1.5 min.
_TIMES = (
    (2 * 86_400, 86_400, "days"),
    (2 * 3_600, 3_600, "h"),
    (2 * 60, 60, "min"),
    (1, 1, "s"),
    (1e-3, 1e-3, "ms"),
    (1e-6, 1e-6, "µs"),
    (0, 1e-9, "ns"),
)
_SIZES = ((1e12, 1e12, "TB"), (1e9, 1e9, "GB"), (1e6, 1e6, "MB"), (1e3, 1e3, "kB"))
_BINARY = tuple(
    (2**n, 2**n, f"{letter}iB") for letter, n in zip("TGMK", (40, 30, 20, 10), strict=True)
)


def duration(seconds: float, digits: int = 3) -> str:
    """Return a time, such as "12.3 ms", "90 s" or "4.5 h"."""
    return _in_unit(seconds, digits, _TIMES) if seconds else "0 s"


def size(bytes: float, digits: int = 3, *, binary: bool = False) -> str:
    """Return a number of bytes, such as "16.4 GB"; `binary` counts in KiB, MiB, GiB and TiB.

    Files and messages are counted in powers of ten, as disks and networks are sold; memory often in
    powers of two, as allocators hand it out.
    """
    return _in_unit(bytes, digits, (*(_BINARY if binary else _SIZES), (0, 1, "bytes")))


def digits(number: float, count: int = 3) -> str:
    """Return a number with `count` digits that count and all digits before the point: "0.0123".

    The zeros at the end stay ("1.00"): they are known as well. What rounding leaves of numbers that
    cancel out is 0, and what is smaller than one in ten thousand has an exponent.
    """
    if abs(number) < 1e-12:
        return "0"
    if not isfinite(number) or abs(number) < 1e-4:
        return f"{number:.{count}g}"
    return f"{number:.{decimals(number, count)}f}"


def decimals(number: float, count: int = 3) -> int:
    """Return how many decimals show `count` digits of a number.

    A value and the two ends of its interval are written with the same number of decimals.
    """
    if not number:
        return count - 1
    rounded = float(f"{number:.{count - 1}e}")  # 9.996 has three digits as 10.0, not as 10.00
    return max(0, count - 1 - floor(log10(abs(rounded))))


def _in_unit(number: float, digits: int, units: Sequence[tuple[float, float, str]]) -> str:
    """Write a number in the first unit that it is large enough for, after rounding."""
    rounded = float(f"{number:.{digits - 1}e}")
    _, scale, unit = next((each for each in units if abs(rounded) >= each[0]), units[-1])
    scaled = number / scale
    # Beyond that many digits before the point, "g" would write an exponent: "1.1e+02 s".
    shown = f"{scaled:.{digits}g}" if abs(scaled) < 10**digits - 0.5 else f"{scaled:.0f}"
    return f"{shown} {unit}"
