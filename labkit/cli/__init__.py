"""The `labkit` command: lab, run, doctor, board.

Each subcommand is a module with two functions: `add_arguments(parser)`, `main(arguments) -> int`.
This file only joins them. Their imports are delayed until a subcommand is chosen, so that `labkit
doctor` still runs, and says what is missing, when JupyterLab or papermill is not installed.

Exit codes: 0 all well, 1 something failed, 2 the command was not understood, 130 interrupted.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "lab": "open JupyterLab on the first notebook",
    "run": "execute notebooks and write the results to results/",
    "doctor": "say what this machine can do, and what to mend",
    "board": "print the scoreboard, or merge those of many machines",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: the words after `labkit`; by default those of this process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="labkit", description="A lab on making model training efficient."
    )
    subparsers = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name, description in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=description, description=description)
        if name in words[:1]:
            module = importlib.import_module(f"labkit.cli.{name}")
            module.add_arguments(subparser)
            subparser.set_defaults(main=module.main)
    arguments = parser.parse_args(words)
    try:
        return int(arguments.main(arguments))
    except UsageError as error:
        print(f"labkit {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"labkit {arguments.command}: interrupted", file=sys.stderr)
        return 130


class UsageError(Exception):
    """What the user asked for does not exist; the message says what does."""
