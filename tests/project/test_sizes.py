"""Sizes: no file too long to read at one go, and a library that stays small."""

from __future__ import annotations

import pytest
from support.sources import code_lines

FOLDERS = ("labkit", "tests", "benchmarks", "examples", "data")
LINES_AT_MOST = 300
# labkit without what only notebooks and the command line need, in lines of code.
LIBRARY_AT_MOST = 10_750
NOT_LIBRARY = ("lessons", "widgets", "cli")


def long_files(root):
    """Return {file: its lines} of the files that are too long."""
    files = [
        path
        for folder in FOLDERS
        for suffix in ("py", "js", "css")
        for path in (root / folder).rglob(f"*.{suffix}")
    ]
    sizes = {str(path.relative_to(root)): len(path.read_text().splitlines()) for path in files}
    assert len(sizes) > 1
    return {name: size for name, size in sizes.items() if size > LINES_AT_MOST}


def test_no_file_is_over_300_lines(root):
    assert long_files(root) == {}


@pytest.mark.parametrize("place", ["labkit/a.py", "data/a/b.py", "tests/c/a.py", "labkit/w/a.js"])
def test_planted_long_files(tmp_path, place):
    for name, lines in [("labkit/short.py", 300), (place, 301)]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n" * lines)
    assert long_files(tmp_path) == {place: 301}


def test_the_library_is_small(root, record_property):
    rooms: dict[str, int] = {}
    for path in sorted((root / "labkit").rglob("*.py")):
        room = path.relative_to(root / "labkit").parts[0].removesuffix(".py")
        rooms[room] = rooms.get(room, 0) + code_lines(path.read_text(encoding="utf-8"))
    whole = sum(rooms.values())
    library = whole - sum(rooms.get(room, 0) for room in NOT_LIBRARY)
    rest = ", ".join(f"{room} {rooms.get(room, 0):,}" for room in NOT_LIBRARY)
    record_property("figure", f"lines of code: library {library:,}, {rest}, together {whole:,}")
    assert library < LIBRARY_AT_MOST, rooms


COUNTED = '''"""A docstring.

Of three lines.
"""

import json  # 1


class A:  # 2
    """Short."""

    text = """  # 3
    a text that is no docstring
    """  # 5

    def f(self):  # 6
        # a comment
        return json.dumps(  # 7

            [1]  # 8
        )  # 9
'''


def test_what_counts_as_code():
    assert code_lines(COUNTED) == 9
    assert code_lines("") == 0
