"""Sentences made from results, so that prose cannot contradict the output beside it."""

from labkit.compare import Verdict


class Prose(str):
    """Text that a notebook shows as Markdown."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)

    def _repr_markdown_(self) -> str:
        return str(self)


def three_calls(verdict: Verdict) -> str:
    """Return "better", "worse" or "can't tell", for texts that know no more than these."""
    return verdict.call if verdict.call in ("better", "worse") else "can't tell"
