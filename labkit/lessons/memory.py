"""A notebook shares 1.2 GB with the processes that it starts: give back what is not needed."""

import ctypes
import gc
import sys


def give_back_memory() -> None:
    """Return freed memory to the system, as far as its allocator offers to: two processes must fit.

    The allocator of most Linux systems keeps what a program has freed, in case it wants it again.
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other allocators have none
        if trim is not None:
            trim(0)
