"""`labkit board`: what was measured, as a table; and the boards of many machines in one file.

A figure is printed as value [low … high] unit (n): without its interval and n it would only be a
number.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from labkit import units
from labkit.cli import UsageError
from labkit.compare import scoreboard
from labkit.compare.cells import NOTHING
from labkit.files import results_folder
from labkit.table import Table, one_line

HEADINGS = ("notebook", "profile", "what", "figure", "value", "95 % interval", "n", "machine")
WIDEST = 120
"""Characters of a cell."""
MOST_FAULTS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `labkit board` takes."""
    parser.add_argument("files", nargs="*", type=Path, help="default: results/scoreboard.jsonl")
    parser.add_argument("--merge", type=Path, metavar="OUT", help="write all rows to one file")


def main(arguments: argparse.Namespace) -> int:
    """Print or merge; 1 when a file cannot be read or written, or holds lines that are no rows.

    Those are named and left out of what is printed. Nothing is merged where there are any: the
    merged file may be to take the place of the others.
    """
    files = arguments.files or [results_folder() / "scoreboard.jsonl"]
    for file in files:
        if not file.is_file():
            raise UsageError(f"no scoreboard {file}; 'labkit run 00' writes one")
    faults: list[str] = []
    try:
        if arguments.merge:
            scoreboard.merge(files, arguments.merge)
            files = [arguments.merge]
        print(table(scoreboard.read(files, faults)))
    except (OSError, ValueError) as error:
        faults.append(str(error))
    more = [f"and {len(faults) - MOST_FAULTS} more"] if len(faults) > MOST_FAULTS else []
    for fault in faults[:MOST_FAULTS] + more:
        print(f"labkit board: {one_line(fault)}", file=sys.stderr)
    return 1 if faults else 0


def table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Return the rows of a scoreboard as a table, one line per figure."""
    lines = []
    for row in rows:
        facts = row["facts"]
        machine = f"{facts.get('processor', '?')}, {facts.get('cores', '?')} cores"
        for name, figure in row["figures"].items():
            where = (row["notebook"], row["profile"], row["what"])
            shown = _value(figure), _interval(figure), str(figure["n"])
            lines.append(tuple(map(shorten, (*where, name, *shown, machine))))
    return Table(HEADINGS, tuple(lines))


def shorten(text: str) -> str:
    """Return the beginning of a text that would make its column absurdly wide."""
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def _value(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:  # the scoreboard keeps what is not finite as null
        return NOTHING
    return f"{units.digits(figure['value'])} {figure['unit']}".strip()


def _interval(figure: Mapping[str, Any]) -> str:
    low, high = figure["low"], figure["high"]
    return "" if low is None or high is None else f"{units.digits(low)} … {units.digits(high)}"
