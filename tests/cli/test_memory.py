"""Watching processes: their memory, and that they end."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

from labkit.cli.memory import ProcessWatch

FILL = "import time; filled = b'x' * {mib} * 2**20; time.sleep({seconds})"


def start(mib=0, seconds=0.5):
    return subprocess.Popen([sys.executable, "-c", FILL.format(mib=mib, seconds=seconds)])


def peak(*sizes):
    with ProcessWatch() as watch:
        processes = [start(mib) for mib in sizes]
        for process in processes:
            process.wait(timeout=60)
    assert watch.end_survivors() == []
    return watch.peak_mib


def test_what_a_process_fills_is_seen():
    assert peak(300) - peak(100) == pytest.approx(200, abs=30)


def test_processes_at_the_same_time_are_added():
    assert peak(150, 150) > 300


def test_pages_that_two_processes_share_count_once(tmp_path):
    shared = tmp_path / "shared"
    shared.write_bytes(b"x" * 200 * 2**20)
    source = (
        "import mmap, time\n"
        f"file = open({str(shared)!r}, 'rb')\n"
        "pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "total = sum(pages[::4096])\n"
        "time.sleep(2)"
    )
    with ProcessWatch() as watch:
        processes = [subprocess.Popen([sys.executable, "-c", source]) for _ in range(2)]
        for process in processes:
            process.wait(timeout=60)
    assert 200 < watch.peak_mib < 300


def test_ranks_and_their_server_are_counted_and_end_with_their_launcher(tmp_path):
    source = (
        "import pathlib, sys, time\n"
        "from labkit.distributed import Ranks, tell\n"
        "def fill(go):\n"
        "    tell(0, 0.0)\n"
        "    while not pathlib.Path(go).exists():\n"
        "        time.sleep(0.05)\n"
        "    kept = b'x' * 200 * 2**20\n"
        "    tell(1, 0.0)\n"
        "    time.sleep(600)\n"
        f"for report in Ranks(fill, 2, go={str(tmp_path / 'go')!r}):\n"
        "    print(flush=True)\n"
    )
    with ProcessWatch() as watch:
        process = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE)
        peaks = []
        for _ in range(2):
            process.stdout.readline(), process.stdout.readline()
            watch.sample()
            peaks.append(watch.peak_mib)
            seen = len(watch._seen)
            (tmp_path / "go").touch()
        process.kill()
        process.communicate(timeout=30)
    assert peaks[1] - peaks[0] == pytest.approx(2 * 200, abs=40)
    assert seen == 5  # the launcher, the fork server, the resource tracker, two ranks
    assert watch.end_survivors() == []


def test_a_process_of_before_does_not_count():
    other = start(mib=400, seconds=60)
    try:
        assert peak(10) < 200
    finally:
        other.kill()
        other.wait(timeout=30)


def test_a_survivor_is_named_and_killed():
    with ProcessWatch() as watch:
        process = start(seconds=600)
        time.sleep(1)
    [name] = watch.end_survivors()
    assert str(process.pid) in name
    assert process.wait(timeout=30) != 0


def test_an_error_in_the_block_ends_what_it_started():
    with pytest.raises(KeyboardInterrupt), ProcessWatch():
        process = start(seconds=600)
        time.sleep(1)
        raise KeyboardInterrupt
    assert process.wait(timeout=30) != 0
    assert not psutil.pid_exists(process.pid)
