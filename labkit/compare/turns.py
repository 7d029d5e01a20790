"""One thread at a time, and none waits for ever.

`live` runs a race in a thread of its own, while a cell may save it or ask for its table. What they
see must be of whole rounds. A lock alone would do that, but whoever lets go of it and takes it
again at once, round after round, may never let another thread have it.
"""

from threading import RLock


class Turns:
    """A lock, held in a `with` block, that threads get in the order in which they ask.

    Who asks while another holds it waits at its head; who lets go must queue like everybody.
    """

    def __init__(self) -> None:
        self._head, self._lock = RLock(), RLock()

    def __enter__(self) -> None:
        with self._head:
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
