"""A file is there whole, or not at all."""

import os
import threading
from pathlib import Path

import pytest

import labkit
from labkit.files import atomic_path, results_folder


def test_the_file_appears_only_when_the_block_succeeds(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file"
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
    assert target.read_text() == "half"
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        temporary.write_text("other")
        raise KeyboardInterrupt
    assert target.read_text() == "half"
    assert list(target.parent.iterdir()) == [target]


def test_two_writers_at_once_do_not_mix(tmp_path: Path) -> None:
    target = tmp_path / "file"
    barrier = threading.Barrier(2)

    def write(word: str) -> None:
        with atomic_path(target) as temporary:
            barrier.wait(10)
            temporary.write_text(word * 1000)
            barrier.wait(10)

    writers = [threading.Thread(target=write, args=(word,)) for word in ("a", "b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(20)
    assert target.read_text() in {"a" * 1000, "b" * 1000}
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_writer_left_is_removed_and_a_living_one_s_is_not(tmp_path: Path) -> None:
    target = tmp_path / "file"
    dead = tmp_path / ".file.999999999-1.tmp"
    alive = tmp_path / f".file.{os.getpid()}-1.tmp"
    for left in (dead, alive):
        left.write_text("half")
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
    assert sorted(tmp_path.iterdir()) == sorted([alive, target])


def test_an_error_names_the_target(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OSError, match=r"cannot write .*/file/below: Not a directory|File exists"),
        atomic_path(tmp_path / "file" / "below"),
    ):
        pass


def test_results_stand_in_the_clone_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LABKIT_RESULTS", raising=False)
    assert results_folder() == Path(labkit.__file__).parents[1] / "results"
    monkeypatch.setenv("LABKIT_RESULTS", str(tmp_path))
    assert results_folder() == tmp_path
