"""Sentences made from results, so that prose cannot contradict the output beside it.

Prose is Markdown that a lesson wrote. What a reader or another machine has named (an arm, a unit, a
processor) is text, and must look in Markdown as it is: `escaped` sees to that.
"""

import re

from labkit.table import one_line

_SPECIAL = re.compile(
    r"[\\`*\[\]~|$<]|&(?=#?\w+;)"
    r"|(?<![^\W_])_|_(?![^\W_])"  # an underscore, unless it stands between two letters or digits
    r"|^>|^[#+-](?=[#\s])|(?<=^\d)[.)](?=\s)"  # the beginning of a quotation, heading or list
)
"""What means something to Markdown."""


class Prose(str):
    """Text that a notebook shows as Markdown. HTML in it stays text, whoever has put it there."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)

    def _repr_markdown_(self) -> str:
        return self.replace("<", "&lt;")


def escaped(text: object) -> str:
    """Return a name as Markdown that shows it letter by letter, in one line.

    A name of letters, digits and such signs as stand in "channels_last" or "1e-3" stays as it is.
    """
    return _SPECIAL.sub(_shown, one_line(str(text)))


def _shown(sign: re.Match[str]) -> str:
    return "&lt;" if sign[0] == "<" else f"\\{sign[0]}"
