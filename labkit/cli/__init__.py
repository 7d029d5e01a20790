"""The `labkit` command: lab, run, doctor, board.

Each subcommand is a module with two functions: `add_arguments(parser)`, `main(arguments) -> int`.
This file only joins them. Their imports are delayed until a subcommand is chosen, so that `labkit
doctor` still runs, and says what is missing, when JupyterLab or papermill is not installed.

Exit codes: 0 all well, 1 something failed, 2 the command was not understood, 130 interrupted.
"""

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from labkit.files import clone

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
            try:
                module = importlib.import_module(f"labkit.cli.{name}")
            except ModuleNotFoundError as error:  # labkit was installed without its extra "lab"
                print(f"labkit {name} needs {error.name}; {install()}", file=sys.stderr)
                return 2
            module.add_arguments(subparser)
            subparser.set_defaults(main=module.main)
    arguments = parser.parse_args(words)
    _settle()
    try:
        return int(arguments.main(arguments))
    except UsageError as error:
        print(f"labkit {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"labkit {arguments.command}: interrupted", file=sys.stderr)
        return 130


def _settle() -> None:
    """Make folders absolute, and let a terminal that knows few signs replace the others.

    Notebooks run in folders of their own, where a relative LABKIT_RESULTS would be another one.
    """
    for name in ("LABKIT_DATA", "LABKIT_RESULTS"):
        if folder := os.environ.get(name):
            os.environ[name] = str(Path(folder).absolute())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def install() -> str:
    """Return how to install what is missing."""
    if clone():
        return "install it with: pip install -e '.[lab]'"
    return "install it with pip, or clone the project and run: make lab"


class UsageError(Exception):
    """What the user asked for does not exist; the message says what does."""
