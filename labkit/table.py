"""A small table that reads well as plain text, in a notebook, and on a page without a kernel."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


def one_line(text: str) -> str:
    """Return text that stays in its line and cannot command a terminal.

    Names come from files of other people. Any white space becomes a space; what cannot be seen,
    such as the escape before a colour or a mark that turns the direction of writing, becomes �.
    """
    return "".join(" " if c.isspace() else c if c.isprintable() else "\ufffd" for c in text)


@dataclass(frozen=True)
class Table:
    """Rows of text under headers; an optional note below.

    Raises:
        ValueError: a row has another number of cells than `headers`.
        TypeError: a cell is no text.
    """

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.headers):
                raise ValueError(f"a row must have {len(self.headers)} cells, got {len(row)}")
        for cell in (cell for row in (self.headers, *self.rows) for cell in row):
            if not isinstance(cell, str):
                raise TypeError(f"a cell of rows must be text, got {cell!r}")

    def __str__(self) -> str:
        headers, *rows = [tuple(map(one_line, row)) for row in (self.headers, *self.rows)]
        widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
        rule = tuple("─" * width for width in widths)
        lines = [_line(row, widths) for row in (headers, rule, *rows)]
        return "\n".join([*lines, *([self.note] if self.note else [])])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(cell)}</th>" for cell in self.headers)
        body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in self.rows)
        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _cell(text: str) -> str:
    return f"<td>{escape(text)}</td>"
