"""Show an error that a lesson wants to happen, and fail if it does not.

A cell that ends in an error stops a notebook that runs unattended, so the error is caught here and
the beginning of its first line printed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten

WIDTH = 160


@contextmanager
def expected(kind: type[Exception]) -> Iterator[None]:
    """Print the first line of an error of this kind that the block raises.

    Raises:
        AssertionError: the block raised nothing.
    """
    try:
        yield
    except kind as error:
        first = str(error).partition("\n")[0]
        print(f"{kind.__name__}: {shorten(first, WIDTH, placeholder=' …')}")
    else:
        raise AssertionError(f"this should have ended in {kind.__name__}, and did not")
