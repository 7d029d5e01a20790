"""The lines that the engine of torch's profiler writes, and which a notebook shows as errors."""

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Written by the profiler's engine at every start; by it where there is no GPU; by it when its first
# start is in another thread than torch's import, as in a live race; and by the allocator when it
# frees memory that was held before: all four are as they should be.
_ENGINE_LINES = re.compile(
    rb"(USDT:\d{4}-"
    rb"|ERROR:\d{4}-[^\n]*DeviceProperties\.cpp:"
    rb"|ERROR: External init callback must run in same thread"
    rb"|\[W\d{4} [^\n]*CPUAllocator\.cpp:)[^\n]*\n"
)
_STDERR = 2
_one_at_a_time = threading.RLock()


@contextmanager
def without_engine_lines() -> Iterator[None]:
    """Keep the engine's lines out of the error stream; whatever else is written comes after.

    C++ writes to the file descriptor itself, and torch offers no way to set its level at run time.
    """
    with _one_at_a_time, tempfile.TemporaryFile() as written:
        original = os.dup(_STDERR)
        os.dup2(written.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(original, _STDERR)
            os.close(original)
            written.seek(0)
            if kept := _ENGINE_LINES.sub(b"", written.read()):
                os.write(_STDERR, kept)
