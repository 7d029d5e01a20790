"""What a benchmark returns, and the one table that all of them end in."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from labkit import units
from labkit.measure.statistics import Estimate
from labkit.table import Table


@dataclass(frozen=True)
class Row:
    """One measured figure.

    Attributes:
        name: what was measured.
        estimate: the figure with its 95 % interval and n; None when it could not be measured here.
        unit: of the figure, such as "ms" or "%".
        note: what a reader needs to understand it, or why there is no figure.
    """

    name: str
    estimate: Estimate | None
    unit: str
    note: str = ""


def not_installed(name: str, library: str) -> Row:
    """Return the row of something that needs a library which is not there."""
    return Row(name, None, "", f"{library} is not installed: pip install 'labkit[bench]'")


def table(rows: Mapping[str, Iterable[Row]], note: str = "") -> Table:
    """Return one table of {benchmark: rows}."""
    lines = [(name, *_cells(row)) for name, group in rows.items() for row in group]
    return Table(
        ("benchmark", "what", "value", "95 % interval", "n", "note"), tuple(lines), note=note
    )


def _cells(row: Row) -> tuple[str, ...]:
    estimate = row.estimate
    if estimate is None:
        return row.name, "–", "–", "–", row.note
    known = math.isfinite(estimate.low) and math.isfinite(estimate.high)
    value, low, high = map(units.digits, (estimate.value, estimate.low, estimate.high))
    interval = f"{low} to {high}" if known else "too few"
    return row.name, f"{value} {row.unit}".rstrip(), interval, str(estimate.n), row.note
