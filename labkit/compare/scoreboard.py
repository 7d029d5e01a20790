"""The scoreboard: one line of JSON for each thing measured, with its interval and its machine.

A row: {"what", "notebook", "profile", "figures": {name: {"value", "low", "high", "n", "unit"}},
"facts", "when"}. Lines are only ever added, so files of many machines can be joined. Files of other
people are foreign text: what is read is checked line by line, and what is not a row is named.
"""

import errno
import json
import math
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from reprlib import repr as brief  # a foreign value may be long, or lists in lists in lists
from typing import Any

from labkit.facts import machine_facts
from labkit.files import atomic_path, results_folder
from labkit.measure.statistics import Estimate
from labkit.table import one_line

TEXTS = ("what", "notebook", "profile", "when")
KEYS = ("what", "notebook", "profile", "figures", "facts", "when")
FIGURE = ("value", "low", "high", "n", "unit")


def row(
    what: str,
    figures: Mapping[str, tuple[Estimate, str]],
    *,
    notebook: str = "",
    profile: str = "",
) -> dict[str, Any]:
    """Return a row: what was measured, {name: (estimate, unit)}, and this machine's facts.

    Raises:
        ValueError: an estimate without a value, or a name that is not printable in one line.
    """
    entry = {
        "what": what,
        "notebook": notebook,
        "profile": profile,
        # Names of arms are the reader's: a break in one of them is no reason to lose the figure.
        "figures": {one_line(name): _figure(name, *figure) for name, figure in figures.items()},
        "facts": machine_facts().as_dict(),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    _check(entry)
    return entry


def append(entry: Mapping[str, Any], path: Path | None = None) -> Path:
    """Add a row to the scoreboard file and return the file.

    Raises:
        ValueError: `entry` is no row; the message says why.
        OSError: the folder cannot be written or the disk is full.
    """
    _check(entry)
    try:
        line = (json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError, RecursionError) as error:  # in what a row need not have
        raise ValueError(f"entry cannot be written as JSON: {error}") from None
    target = path or results_folder() / "scoreboard.jsonl"
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, f"cannot write {target}: it is no plain file")
    # One write to a file opened for appending: two notebooks at once do not mix their lines.
    with target.open("ab+", buffering=0) as file:
        if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
            line = b"\n" + line  # whoever wrote before was killed in its line
        if file.write(line) < len(line):
            raise OSError(
                errno.ENOSPC, f"cannot write all of the row to {target}: the disk is full"
            )
    return target


def read(paths: Iterable[Path], faults: list[str] | None = None) -> list[dict[str, Any]]:
    """Return the rows of all files, oldest first, each once.

    Args:
        paths: of scoreboard files.
        faults: takes a sentence for each line that is no row, in place of an error.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a line is no row; the message names file and line.
    """
    return list(_rows(paths, faults).values())


def merge(paths: Iterable[Path], target: Path) -> int:
    """Write the rows of all files to `target`, oldest first, each once; return their number."""
    rows = _rows(paths)
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"".join(line + b"\n" for line in rows))
    return len(rows)


def _rows(paths: Iterable[Path], faults: list[str] | None = None) -> dict[bytes, dict[str, Any]]:
    """Return {line: row} of all files, oldest first; see `read`."""
    rows: dict[bytes, dict[str, Any]] = {}
    for path in paths:
        for number, line in enumerate(map(bytes.strip, path.read_bytes().split(b"\n")), start=1):
            try:
                if line:
                    rows[line] = _parse(line)
            except ValueError as error:
                fault = f"{path}, line {number}: {error}"
                if faults is None:
                    raise ValueError(f"{fault}; delete the line") from error
                faults.append(fault)
    return dict(sorted(rows.items(), key=lambda item: str(item[1]["when"])))


def _figure(name: str, estimate: Estimate, unit: str) -> dict[str, Any]:
    """Return an estimate as JSON knows it: what the observations could not give is null."""
    if math.isnan(estimate.value):
        raise ValueError(f"figures[{name!r}] has no value: {estimate!r}")
    ends = {key: float(getattr(estimate, key)) for key in ("value", "low", "high")}
    known = {key: end if math.isfinite(end) else None for key, end in ends.items()}
    return {**known, "n": int(estimate.n), "unit": one_line(unit)}


def _parse(line: bytes) -> dict[str, Any]:
    """Return the row that a line holds, or raise a ValueError that says why it is none."""
    try:
        entry: dict[str, Any] = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg})") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists
        raise ValueError("no JSON that can be read") from None
    if fault := _fault(entry):
        raise ValueError(f"not a scoreboard row: {fault}")
    return entry


def _check(entry: Mapping[str, Any]) -> None:
    """Refuse an entry that `read` would refuse, or whose names do not fit in a line."""
    if fault := _fault(entry):
        raise ValueError(f"entry is not a scoreboard row: {fault}")
    units = (figure["unit"] for figure in entry["figures"].values())
    for text in (*(entry[key] for key in TEXTS), *entry["figures"], *units):
        if not text.isprintable():
            raise ValueError(f"names in an entry must be printable and one line, got {brief(text)}")


def _fault(entry: object) -> str:
    """Return what is wrong with a row, or ""."""
    if not isinstance(entry, Mapping):
        return f"it is {brief(entry)}"
    if missing := [key for key in KEYS if key not in entry]:
        return f"it lacks {', '.join(missing)}; it must have {', '.join(KEYS)}"
    for key in KEYS:
        kind, word = (str, "text") if key in TEXTS else (Mapping, "{name: value}")
        if not isinstance(entry[key], kind):
            return f"{key} must be {word}, got {brief(entry[key])}"
    if not all(isinstance(fact, str | int | float | None) for fact in entry["facts"].values()):
        return f"facts must be text or numbers, got {brief(entry['facts'])}"
    for name, figure in entry["figures"].items():
        if not isinstance(name, str):
            return f"names of figures must be text, got {brief(name)}"
        if fault := _figure_fault(figure):
            return f"a figure {fault} ({brief(name)})"
    return ""


def _figure_fault(figure: object) -> str:
    """Return what is wrong with a figure of a row, or ""."""
    if not isinstance(figure, Mapping):
        return f"is {brief(figure)}"
    if missing := [key for key in FIGURE if key not in figure]:
        return f"lacks {missing[0]!r}"
    for key in ("value", "low", "high"):
        if figure[key] is not None and not _is_number(figure[key]):
            return f"must have a finite number or null as its {key}, got {brief(figure[key])}"
    low, high, n = figure["low"], figure["high"], figure["n"]
    if low is not None and high is not None and low > high:
        return f"has its low end, {low}, above its high one, {high}"
    if not _is_number(n) or n < 0 or n != int(n):
        return f"must have a whole number as its n, got {brief(n)}"
    return "" if isinstance(figure["unit"], str) else f"has the unit {brief(figure['unit'])}"


def _is_number(value: object) -> bool:
    """Say whether this is a number that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
