"""How a rank can fail, and how to say it.

When one rank of eight is killed, the seven that waited for it raise as well. What helps is the
failure that came first, and what that rank said itself. So an error holds one rank's words: its
traceback, its signal, or the place where it hung.
"""

import signal
from collections.abc import Iterable
from typing import NamedTuple

_SIGNALS = {each.value: each.name for each in signal.Signals}
_MEMORY = " (the system does that when memory runs out)"
_SERVER_LOST = 255  # what multiprocessing says of a process whose fork server has ended


class RankError(RuntimeError):
    """A rank failed. The message holds its traceback, its signal, or where it hung."""


class Failure(NamedTuple):
    """What is known of a rank that failed.

    Attributes:
        when: by `time.monotonic`, the same clock for all processes; 0 if it could not say.
        rank: its number.
        what: the rest of a sentence that begins with the rank.
        trace: its traceback, or the stack at its end; empty if there is none.
    """

    when: float
    rank: int
    what: str
    trace: str


def first_cause(failures: Iterable[Failure], size: int) -> RankError:
    """Return the error that tells what came first.

    A rank that could say nothing any more explains what the others raised, so it counts as first.
    """
    first = min(failures)  # by `when`, the first field
    trace = f"\n\n{first.trace}" if first.trace else ""
    return RankError(f"rank {first.rank} of {size} {first.what}{trace}")


def hang(stacks: dict[int, str], seconds: float) -> RankError:
    """Return the error for ranks that have not ended in time, from {rank: where it is}."""
    text = f"rank {', '.join(map(str, stacks))} had not ended after {seconds:g} s"
    for rank, stack in stacks.items():
        text += f"\n\nrank {rank} was here:\n{stack or 'nothing is known: it was frozen'}"
    return RankError(text)


def how_it_ended(code: int | None) -> str:
    """Say how a process ended that could say nothing itself, from its exit code."""
    if code is not None and code < 0:
        name = _SIGNALS.get(-code, f"signal {-code}")
        return f"was killed by {name}{_MEMORY if name == 'SIGKILL' else ''}"
    if code == _SERVER_LOST:
        return f"was lost, because the server of all ranks was killed{_MEMORY}"
    return (
        f"ended with exit code {code} before its function did; its own words, if any, stand above. "
        'In a script, launch must be called under if __name__ == "__main__":'
    )
