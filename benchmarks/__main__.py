"""`python -m benchmarks [name ...] [--quick]`: measure, print one table, note it on the scoreboard.

--quick takes a minute or two and only shows that everything works: its figures are no evidence.
"""

import argparse
import importlib
import sys
import traceback
from collections.abc import Sequence
from time import perf_counter

from benchmarks.rows import Row, table
from labkit.compare import scoreboard
from labkit.facts import machine_facts, threads

# loop_overhead comes last: it brings the other libraries into the process.
BENCHMARKS = (
    "import_cost",
    "verdict_calibration",
    "live_view",
    "data_parallel",
    "pruning",
    "quantization",
    "loop_overhead",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks named, or all; return 1 when one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="show that it works, in a minute")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")

    done: dict[str, list[Row]] = {}
    failed = []
    for name in options.names or BENCHMARKS:
        print(f"{name} …", file=sys.stderr, flush=True)
        began = perf_counter()
        try:
            done[name] = run_one(name, options.quick)
        except Exception:
            traceback.print_exc()
            failed.append(name)
        print(f"{name}: {perf_counter() - began:.0f} s", file=sys.stderr, flush=True)

    with threads(1):  # as in the benchmarks
        facts = machine_facts()
    print(table(done, note=f"\n{facts}"))
    if failed:
        print(f"failed: {', '.join(failed)} (see the error above)", file=sys.stderr)
    return 1 if failed else 0


def run_one(name: str, quick: bool) -> list[Row]:
    """Run one benchmark, add its figures to the scoreboard, and return its rows."""
    rows: list[Row] = importlib.import_module(f"benchmarks.{name}").run(quick=quick)
    figures = {row.name: (row.estimate, row.unit) for row in rows if row.estimate is not None}
    if figures:
        with threads(1):
            entry = scoreboard.row(
                f"benchmark {name}", figures, profile="quick" if quick else "full"
            )
        scoreboard.append(entry)
    return rows


if __name__ == "__main__":
    sys.exit(main())
