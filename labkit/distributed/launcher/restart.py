"""A clean place to meet after a restart.

Ranks find each other in a store: a small table that one process serves. Each writes where it
listens, and reads where the others do. `torchrun` keeps the same store when it starts the ranks
again after a failure, and so what the dead ranks wrote is still there. A quick rank reads the
address of a dead one, is refused, and fails; with some luck the next restart succeeds.

So each start of the ranks gets a part of the store to itself. The number of the start would do as
its name, but two machines count differently: the one whose rank died counts a restart, the other
may only notice that a machine joins anew. Therefore the ranks agree on a number by themselves.

Rank 0 draws the next number. Any other rank reads the newest and writes under it a name that was
never used before; that number is good when rank 0 answers with this very name. A number of the past
is never good, because rank 0 of that time is dead and answers nobody.
"""

from datetime import timedelta
from time import monotonic, sleep
from uuid import uuid4

from torch._C._distributed_c10d import PrefixStore, Store

PATIENCE = timedelta(minutes=5)
"""How long a rank waits for the others; they may still be loading torch."""


def fresh_store(store: Store, rank: int, size: int, *, patience: timedelta = PATIENCE) -> Store:
    """Return a part of `store` that is empty and the same on all ranks of this start.

    Args:
        store: reached by all ranks; it may hold what ranks of earlier starts have left.
        rank: of this process.
        size: number of ranks. All of them call this, once in each start.
        patience: how long to wait for the others.

    Raises:
        RuntimeError: not all ranks came in time.
    """
    number = _answer(store, size, patience) if rank == 0 else _ask(store, rank, patience)
    return PrefixStore(f"start {number}", store)


def _answer(store: Store, size: int, patience: timedelta) -> int:
    """Draw a number, and answer the others' names."""
    number: int = store.add("starts", 1)  # in one step, and nobody else draws
    keys = [f"name {number} {rank}" for rank in range(1, size)]
    store.wait(keys, patience)
    for key in keys:
        store.set(f"answer {store.get(key).decode()}", str(number))
    return number


def _ask(store: Store, rank: int, patience: timedelta) -> int:
    """Show a new name under the newest number until rank 0 answers it."""
    name, limit = uuid4().hex, monotonic() + patience.total_seconds()
    while not store.check([f"answer {name}"]):
        # `add` of 0 reads the newest number; `get` would wait for rank 0 to draw the first one.
        store.set(f"name {store.add('starts', 0)} {rank}", name)
        if monotonic() > limit:
            raise RuntimeError(f"rank 0 did not come within {patience.total_seconds():g} s")
        sleep(0.02)
    return int(store.get(f"answer {name}"))
