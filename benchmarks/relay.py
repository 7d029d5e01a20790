"""Run several loops in turn, when none of them was made to be interrupted.

Each loop has a thread, but only one thread ever runs: the one with the baton. The others wait
for it inside their `hand_over`. So the steps of libraries that know nothing of each other are
interleaved within milliseconds, and a busy neighbour slows all of them alike.
"""

from collections.abc import Callable, Mapping
from functools import partial
from threading import Lock, Thread

Runner = Callable[[Callable[[], None]], None]


def relay(runners: Mapping[str, Runner]) -> None:
    """Run all of `runners`, each called with its `hand_over`, in their order, until all are done.

    Raises:
        Exception: the first one that a runner raised, with the runner's name added.
    """
    gates = {name: Lock() for name in runners}
    waiting = list(runners)
    errors: list[BaseException] = []
    for gate in gates.values():
        gate.acquire()

    def successor(name: str) -> str:
        return waiting[(waiting.index(name) + 1) % len(waiting)]

    def hand_over(name: str) -> None:
        gates[successor(name)].release()  # perhaps its own
        gates[name].acquire()

    def run(name: str) -> None:
        gates[name].acquire()
        try:
            runners[name](partial(hand_over, name))
        except BaseException as error:
            error.add_note(f"raised by {name!r}")
            errors.append(error)
        following = successor(name)
        waiting.remove(name)
        if waiting:
            gates[following].release()

    threads = [Thread(target=run, args=(name,), daemon=True) for name in runners]
    for thread in threads:
        thread.start()
    if waiting:
        gates[waiting[0]].release()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
