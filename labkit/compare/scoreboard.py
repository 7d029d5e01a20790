"""The scoreboard: one line of JSON for each thing measured, with its interval and its machine.

A row: {"what", "notebook", "profile", "figures": {name: {"value", "low", "high", "n", "unit"}},
"facts", "when"}. Lines are only ever added, so files of many machines can be joined.
"""

import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labkit.facts import machine_facts
from labkit.files import atomic_path, results_folder
from labkit.measure.statistics import Estimate

KEYS = ("what", "notebook", "profile", "figures", "facts", "when")


def row(
    what: str,
    figures: Mapping[str, tuple[Estimate, str]],
    *,
    notebook: str = "",
    profile: str = "",
) -> dict[str, Any]:
    """Return a row: what was measured, {name: (estimate, unit)}, and this machine's facts."""
    return {
        "what": what,
        "notebook": notebook,
        "profile": profile,
        "figures": {
            # JSON has no infinity: what the observations could not give is null.
            name: {k: v if math.isfinite(v) else None for k, v in vars(estimate).items()}
            | {"unit": unit}
            for name, (estimate, unit) in figures.items()
        },
        "facts": machine_facts().as_dict(),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def append(entry: Mapping[str, Any], path: Path | None = None) -> Path:
    """Add a row to the scoreboard file and return the file.

    Raises:
        ValueError: the row lacks a key.
        OSError: the folder cannot be written or the disk is full.
    """
    missing = [key for key in KEYS if key not in entry]
    if missing:
        raise ValueError(f"entry lacks {', '.join(missing)}; it must have {', '.join(KEYS)}")
    target = path or results_folder() / "scoreboard.jsonl"
    line = json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n"
    target.parent.mkdir(parents=True, exist_ok=True)
    # One write to a file opened for appending: two notebooks at once do not mix their lines.
    with target.open("ab", buffering=0) as file:
        file.write(line.encode())
    return target


def read(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Return the rows of all files, oldest first, each once.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a line is no row; the message names file and line.
    """
    rows: dict[str, dict[str, Any]] = {}
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if line.strip():
                rows[line] = _parse(line, f"{path}, line {number}")
    return sorted(rows.values(), key=lambda entry: str(entry["when"]))


def merge(paths: Iterable[Path], target: Path) -> int:
    """Write the rows of all files to `target`, oldest first, each once; return their number."""
    rows = read(paths)
    with atomic_path(target) as temporary:
        lines = (json.dumps(entry, ensure_ascii=False) + "\n" for entry in rows)
        temporary.write_text("".join(lines), encoding="utf-8")
    return len(rows)


def _parse(line: str, where: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error.msg}); delete the line") from error
    if not isinstance(entry, dict) or any(key not in entry for key in KEYS):
        raise ValueError(f"{where}: not a scoreboard row; it must have {', '.join(KEYS)}")
    return entry
