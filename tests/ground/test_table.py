"""The table is aligned as text, and safe and complete as HTML."""

import pytest

from labkit.table import Table


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


def test_a_short_row_is_refused() -> None:
    with pytest.raises(ValueError, match="a row must have 2 cells, got 1"):
        Table(("a", "b"), (("1",),))
