"""The table is aligned as text, and safe and complete as HTML."""

import pytest

from labkit.table import Table, one_line


def test_columns_are_aligned() -> None:
    lines = str(Table(("arm", "ms"), (("fp32", "1"), ("a longer one", "23")), note="Note.")).split(
        "\n"
    )
    assert lines[0] == "arm           ms"
    assert {line.index(cell) for line, cell in zip(lines[2:4], ("1", "23"), strict=True)} == {14}
    assert lines[-1] == "Note."


def test_html_escapes_what_is_not_meant_as_html() -> None:
    html = Table(("a<b",), (("<script>",),), note="x & y")._repr_html_()
    assert "a&lt;b" in html
    assert "<script>" not in html
    assert "x &amp; y" in html


def test_foreign_text_neither_breaks_a_line_nor_colours_it() -> None:
    foreign = "a\u001b[31mred\nb\tc\u2028d\u202ee\x85f\ud800g\x00"
    lines = str(Table(("name", "n"), ((foreign, "1"),))).split("\n")
    assert len(lines) == 3
    assert lines[2] == "a\ufffd[31mred b c d\ufffde f\ufffdg\ufffd  1"
    assert lines[0].index(" n") == lines[2].index(" 1")
    assert one_line("1.0 ms · Müller 名") == "1.0 ms · Müller 名"


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="a cell of rows must be text, got 1"):
        Table(("a", "b"), (("x", 1),))  # type: ignore[arg-type]


def test_a_short_row_is_refused() -> None:
    with pytest.raises(ValueError, match="a row must have 2 cells, got 1"):
        Table(("a", "b"), (("1",),))
