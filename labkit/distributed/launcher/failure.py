"""How a rank can fail, and how to say it.

When one rank of eight is killed, the seven that waited for it raise as well. What helps is the
failure that came first, and what that rank said itself. So an error holds one rank's words: its
traceback, its signal, or the place where it hung.
"""

import re
import signal
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_SIGNALS = {each.value: each.name for each in signal.Signals}
_MEMORY = " (the system does that when memory runs out)"
_LOST = re.compile(r"Connection (closed|reset)|Broken pipe|connection was", re.IGNORECASE)
_COLLECTIVE = re.compile(r"distributed_c10d\.py\", line \d+, in (\w+)")
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


def first_cause(failures: Iterable[Failure], size: int, returned: Sequence[int]) -> RankError:
    """Return the error that tells what came first.

    A rank that could say nothing any more explains what the others raised, so it counts as first.
    One that lost its connection to a rank that has returned was waiting for it in vain.
    """
    first = min(failures)  # by `when`, the first field
    what, trace = first.what, f"\n\n{first.trace}" if first.trace else ""
    if returned and _LOST.search(what):
        where = _COLLECTIVE.findall(trace)
        what = (
            f"waited in {where[-1] if where else 'a collective'} for others, but rank "
            f"{_listed(returned)} had returned: all must call it equally often, in each batch alike"
        )
    return RankError(f"rank {first.rank} of {size} {what}{trace}")


def hang(stacks: dict[int, str], seconds: float, returned: Sequence[int]) -> RankError:
    """Return the error for ranks that have not ended in time, from {rank: where it is}."""
    text = f"rank {_listed(stacks)} had not ended after {seconds:g} s"
    text += f", rank {_listed(returned)} had returned" if returned else ""
    text += ": if that is no hang but long work, raise deadline="
    for rank, stack in stacks.items():
        text += f"\n\nrank {rank} was here:\n{stack or 'nothing is known: it was frozen'}"
    return RankError(text)


def _listed(ranks: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(ranks)))


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
