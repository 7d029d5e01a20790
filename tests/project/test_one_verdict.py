"""Only labkit/compare decides what a measurement means; nobody else compares to choose words.

A threshold of one's own (`if ratio.low > 1`, `accuracy >= whole - 0.01`) says one thing where the
verdict beside it says another. Whoever needs words takes a Verdict and one sentence for each call.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIGURES = {"estimate", "low", "high", "call"}
ACCURACY = re.compile(r"accurac", re.IGNORECASE)

# The one that decides; and one whose lows and highs are bounds of activations, not of estimates.
EXEMPT = ("compare", "compression")
# They leave away an interval that is not there, and choose no words.
WITHOUT_WORDS = {"benchmarks/rows.py", "labkit/widgets/charts.py"}


def sources() -> dict[str, str]:
    """Return {path: Python source} of all that could choose words."""
    files = [
        path
        for folder in ("labkit", "benchmarks", "examples")
        for path in (ROOT / folder).rglob("*.py")
        if not any(path.is_relative_to(ROOT / "labkit" / room) for room in EXEMPT)
    ]
    found = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in files}
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        plain = (re.sub(r"^[ \t]*[%!].*$|^(\s*)await ", r"\1", text, flags=re.M) for text in code)
        found[path.relative_to(ROOT).as_posix()] = "\n".join(plain)
    return found


def decisions(source: str) -> Iterator[str]:
    """Yield every comparison of a figure or of accuracies in a source."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare) and not any(map(identity, node.ops)):
            sides = [node.left, *node.comparators]
            figures = any(figures_in(side) for side in sides)
            accuracies = sum(any(map(ACCURACY.search, names(side))) for side in sides)
            if figures or accuracies > 1:
                yield f"line {node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.Call) and names(node.func) & {"isinf", "isfinite"}:
            yield from (f"line {node.lineno}: {ast.unparse(a)}" for a in node.args if figures_in(a))


def identity(operator: ast.cmpop) -> bool:
    """Whether it only asks if there is something: `is None`."""
    return isinstance(operator, ast.Is | ast.IsNot)


def figures_in(node: ast.AST) -> set[str]:
    """Return the figures of a measurement that an expression reads; `self.low` is its own bound."""
    return {
        part.attr
        for part in ast.walk(node)
        if isinstance(part, ast.Attribute)
        and part.attr in FIGURES
        and not (isinstance(part.value, ast.Name) and part.value.id == "self")
    }


def names(node: ast.AST) -> set[str]:
    """Return the names and attributes in an expression."""
    attributes = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
    return attributes | {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("if verdict.estimate.low > 1: words()", 1),
        ("word = 'a' if ratio.high < 0.98 else 'b'", 1),
        ("if verdict.call == 'better': pass", 1),
        ("if accuracy['a'] >= accuracy['b'] - 0.01: pass", 1),
        ("if pruned.accuracy > whole.accuracy: pass", 1),
        ("few = math.isinf(ratio.high)", 1),
        ("words = texts[verdict.call]", 0),
        ("if accuracy > 0.9: stop()", 0),
        ("print(verdict.estimate.low)", 0),
        ("if row.estimate is not None: show()", 0),
        ("assert self.low < self.high", 0),
    ],
)
def test_decisions_are_found(source: str, count: int) -> None:
    assert len(list(decisions(source))) == count


def test_nobody_but_compare_decides() -> None:
    found = {path: list(decisions(source)) for path, source in sources().items()}
    deciding = {path: lines for path, lines in found.items() if lines and path not in WITHOUT_WORDS}
    assert not deciding, f"take a Verdict, and one sentence for each call: {deciding}"
