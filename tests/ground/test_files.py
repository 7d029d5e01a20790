"""A file is there whole, or not at all."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import labkit
from labkit import files
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


NAMES = ("file", "race[1].pt", "a*?b", "n" * 240, "名" * 80)


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_what_a_killed_writer_left_is_removed_and_a_living_one_s_is_not(
    name: str, tmp_path: Path
) -> None:
    target = tmp_path / name
    code = (
        "import os, sys, pathlib; from labkit.files import atomic_path\n"
        "with atomic_path(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(target)], timeout=60)
    (dead,) = tmp_path.iterdir()
    alive = dead.with_name(dead.name.replace(dead.name.split(".")[-2], f"{os.getpid()}-1"))
    alive.write_text("half")
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
    assert sorted(tmp_path.iterdir()) == sorted([alive, target])
    assert target.read_text() == "whole"


def test_an_error_names_the_target(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OSError, match=r"cannot write .*/file/below: Not a directory|File exists"),
        atomic_path(tmp_path / "file" / "below"),
    ):
        pass


@pytest.mark.parametrize("kind", ["folder", "FIFO", "device", "loop", "read-only", "null", "here"])
def test_what_is_no_plain_file_is_refused_before_anything_is_written(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, error = tmp_path / kind, r"cannot write .*"
    if kind == "folder":
        target.mkdir()
    elif kind == "FIFO":
        os.mkfifo(target)
    elif kind == "device":
        target.symlink_to("/dev/null")
    elif kind == "loop":
        target.symlink_to(target)
    elif kind == "read-only":  # nobody stops root: ask as if it were somebody else
        target.write_text("mine")
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    elif kind == "null":
        target, error = tmp_path / "a\0b", "cannot be the name of a file"
    else:
        target, error = Path(), "cannot write .: it is a folder"
    with pytest.raises((OSError, ValueError), match=error), atomic_path(target):
        pytest.fail("the block must not begin")
    assert len(list(tmp_path.iterdir())) == (kind not in ("null", "here"))
    assert Path("/dev/null").is_char_device()


def test_a_link_stays_one_and_what_it_points_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name, target in (("link", "there/file"), ("chain", "link"), ("new", "there/not yet")):
        (tmp_path / name).symlink_to(target)
        with atomic_path(tmp_path / name) as temporary:
            temporary.write_text(name)
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / target).read_text() == name
    assert sorted(p.name for p in (tmp_path / "there").iterdir()) == ["file", "not yet"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755, 0o660])
def test_the_mode_stays_also_while_it_is_written(mode: int, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    target.chmod(mode)
    os.chown(target, os.getuid(), os.getgid())
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert not stat.S_IMODE(temporary.stat().st_mode) & ~mode
        other = temporary.with_name("other")  # some libraries rename a file of their own to it
        other.write_text("new")
        other.replace(temporary)
    assert stat.S_IMODE(target.stat().st_mode) == mode


def test_a_new_file_has_the_mode_that_new_files_have(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_without_a_clone_results_stand_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where pip installed a wheel: nothing is written among the packages."""
    site = tmp_path / "site-packages"
    (site / "labkit").mkdir(parents=True)
    (site / "notebooks").mkdir()  # some package brings such a folder
    monkeypatch.setattr(files, "__file__", str(site / "labkit" / "files.py"))
    monkeypatch.chdir(tmp_path)
    for chosen in (None, ""):
        monkeypatch.delenv("LABKIT_RESULTS", raising=False)
        if chosen is not None:
            monkeypatch.setenv("LABKIT_RESULTS", chosen)
        assert files.clone() is None
        assert results_folder() == tmp_path / "results"


def test_results_stand_in_the_clone_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LABKIT_RESULTS", raising=False)
    assert results_folder() == Path(labkit.__file__).parents[1] / "results"
    monkeypatch.setenv("LABKIT_RESULTS", "")
    assert results_folder() == Path(labkit.__file__).parents[1] / "results"
    monkeypatch.setenv("LABKIT_RESULTS", str(tmp_path))
    assert results_folder() == tmp_path
