"""What a Python source says about itself: its imports, and how many lines of code it has."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def imports(source: str) -> Iterator[tuple[str, bool]]:
    """Yield (module, is it at the top level) for every import of a Python source.

    What stands in functions and under `if TYPE_CHECKING` counts too. `from labkit import data`
    imports labkit.data; of other packages it cannot be seen whether a name is a module.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        top = node in tree.body
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name, top
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level + (node.module or ""), top
            elif node.module == "labkit":
                for name in node.names:
                    yield f"labkit.{name.name}", top
            else:
                yield node.module, top


def import_graph(package: Path) -> dict[str, set[str]]:
    """Return {module of a package: the modules of it that it imports}.

    `from package.room import name` means the module `package.room.name` where there is one, else
    the `__init__.py` of the room. That a module's own packages are loaded before it does not count.
    """
    files = {
        ".".join(path.relative_to(package.parent).with_suffix("").parts): path
        for path in package.rglob("*.py")
    }
    files = {name.removesuffix(".__init__"): path for name, path in files.items()}
    graph: dict[str, set[str]] = {name: set() for name in files}
    for name, path in files.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                graph[name] |= {each if each in files else str(node.module) for each in whole}
        graph[name] &= files.keys()
    return graph


def code_lines(source: str) -> int:
    """Return how many lines hold code: none that is blank, only a comment, or of a docstring."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            text = node.body[0]
            docstrings |= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)
