"""Where the project's folders are, and which notebooks there are.

The commands work from a clone: notebooks and data are files to read and change, not part of an
installed package. The clone is found from this file's own place.
"""

from pathlib import Path

from labkit.cli import UsageError
from labkit.files import clone


def root() -> Path:
    """Return the top folder of the clone.

    Raises:
        UsageError: labkit was installed without its notebooks.
    """
    folder = clone()
    if folder is None:
        raise UsageError(
            "labkit was installed without its notebooks: clone the project and install it with "
            "'pip install -e .[lab]', or run 'make lab'"
        )
    return folder


def notebooks() -> Path | None:
    """Return the folder of the project's notebooks, or None if labkit was installed without."""
    return root() / "notebooks" if clone() else None


def find_notebooks(wanted: list[str], folder: Path | None) -> list[Path]:
    """Return the notebooks that words such as "03", "3", "03_precision", a path or "all" name.

    Args:
        wanted: the words.
        folder: of the project's notebooks; None if there is none: then only paths name any.

    Raises:
        UsageError: a word names no notebook, or more than one; the message lists those there are.
    """
    if folder is None and not all(word.endswith(".ipynb") for word in wanted):
        folder = root()  # says what is missing
    there = sorted(folder.glob("[0-9][0-9]_*.ipynb")) if folder else []
    found: list[Path] = []
    for word in wanted:
        matches = there if word == "all" else _matches(word, there)
        if not matches:
            names = ", ".join(path.stem for path in there) or "none"
            raise UsageError(f"no notebook {word!r}; there are: {names}")
        found += [path for path in matches if path not in found]
    return found


def _matches(word: str, there: list[Path]) -> list[Path]:
    if word.endswith(".ipynb"):
        path = Path(word).absolute()
        return [path] if path.is_file() else []
    if word.isdecimal():
        return [path for path in there if path.name[:2] == word.lstrip("0").zfill(2)]
    return [path for path in there if path.stem == word]
