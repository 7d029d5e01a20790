"""A race that is saved, or looked at, while it runs in another thread: always of whole rounds."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.racing import recipe

from labkit.compare import Race
from labkit.compare.turns import Turns
from labkit.training import SGD
from labkit.training.checkpoint import read_state, write_state


@pytest.fixture(autouse=True)
def _no_profiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.compare.race.peak_memory", lambda call, device: call() or 1)


def race() -> Race:
    arms = {"a": recipe(), "b": recipe(optimizer=SGD(lr=0.01)), "c": recipe(accumulate=2)}
    return Race(arms, seeds=2, evaluations=3)


def meanwhile(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_saves_are_of_whole_rounds_and_continue_it_to_the_bit(tmp_path: Path) -> None:
    running, saves = race(), list[Path]()
    weights: dict[tuple[int, int], dict[str, torch.Tensor]] = {}

    alone = race()
    for done in alone:
        weights[done.seed, done.number] = {
            name: t.model.net.stem.weight.detach().clone() for name, t in alone.trainings.items()
        }
    thread = meanwhile(lambda: list(running))
    while thread.is_alive():
        saves.append(tmp_path / str(len(saves)))
        time.sleep(0.03)
        running.save(saves[-1])
        assert running.samples.arms == ("a", "b", "c")
    thread.join()
    assert len(saves) >= 5
    for path in saves:
        state = read_state(path)
        if not state["trainings"]:
            continue
        number, seed = state["number"], state["records"]["a"][-1]["seed"]
        indices = [state["trainings"][arm]["index"] for arm in "abc"]
        assert indices == [number, number, -(-number // 2)]
        for arm, saved in state["trainings"].items():
            if number:  # else nothing is trained yet
                assert torch.equal(saved["model"]["net.stem.weight"], weights[seed, number][arm])


def test_whoever_waits_gets_the_next_turn() -> None:
    turns, order, stop = Turns(), list[str](), threading.Event()

    def greedy() -> None:
        while not stop.is_set():
            with turns:
                order.append("greedy")
                stop.wait(0.001)

    thread = meanwhile(greedy)
    for _ in range(20):
        before = len(order)
        with turns:
            assert len(order) - before <= 2, "it was passed over"
    stop.set()
    thread.join()
    with turns, turns:  # the thread that holds it may enter again
        pass


@pytest.mark.parametrize("key", ["rounds_done", "number", "wall", "rng", "records", "trainings"])
def test_a_file_that_lacks_something_changes_nothing(key: str, tmp_path: Path) -> None:
    saved, other = race(), race()
    saved.advance()
    saved.save(tmp_path / "race")
    for _ in range(2):
        other.advance()
    before = other.number, other.seconds_left, other.records, other.trainings
    state = read_state(tmp_path / "race")
    del state[key]
    write_state(tmp_path / "race", state)
    with pytest.raises(ValueError, match="continuing the race of .*race failed"):
        other.load(tmp_path / "race")
    assert before == (other.number, other.seconds_left, other.records, other.trainings)
