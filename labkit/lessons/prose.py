"""Sentences made from results, so that prose cannot contradict the output beside it."""


class Prose(str):
    """Text that a notebook shows as Markdown."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)

    def _repr_markdown_(self) -> str:
        return str(self)
