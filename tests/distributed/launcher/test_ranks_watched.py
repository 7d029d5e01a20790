"""What a live view shows of many processes, against made-up reports and on real ones."""

from __future__ import annotations

import math
import os
import time
from typing import Any

import psutil
import pytest

from labkit.compare.record import WARMUP_ROUNDS
from labkit.distributed import RankError, Ranks, RankStep, tell
from labkit.distributed.launcher.ranks_watched import FEWEST, MOST, POINTS, RanksFeed
from labkit.measure.running_average import KEPT
from labkit.watch import History, ProcessFeed
from labkit.widgets import LiveRun, Point, feed, live
from labkit.widgets.twin import draw

pytestmark = pytest.mark.timeout(60)


class MadeUp(Ranks):
    """Ranks that report what a test has written down, one list a look."""

    def __init__(self, nprocs: int, *looks: list[RankStep]) -> None:
        self.nprocs, self._looks = nprocs, list(looks)

    @property
    def running(self) -> bool:
        return bool(self._looks)

    def poll(self, seconds: float) -> list[RankStep]:
        return self._looks.pop(0)

    def hold(self) -> None: ...
    def go_on(self) -> None: ...


def told(rank: int, step: int, steps: int | None = None, **other: Any) -> RankStep:
    values = {"loss": 1.0, "bytes_sent": 0, "waiting": 0.001, "seconds": 0.004, **other}
    return RankStep(rank, step, steps=steps, **values)


def shown(nprocs: int, *looks: list[RankStep]) -> tuple[RanksFeed, list[Point]]:
    source = RanksFeed(MadeUp(nprocs, *looks))  # type: ignore[arg-type]
    while source.advance():
        pass
    return source, list(source.rows())


def curve(points: list[Point], panel: int, series: int) -> list[tuple[float, float]]:
    return [(p.x, p.y) for p in points if (p.panel, p.series) == (panel, series)]


# -- made up -------------------------------------------------------------------------------------


def test_there_is_a_line_and_a_lane_for_each_rank() -> None:
    for nprocs in (1, 2, 4):
        source, _ = shown(nprocs)
        loss, *lanes = source.panels
        assert loss.series == tuple(f"rank {rank}" for rank in range(nprocs))
        assert [lane.title for lane in lanes] == [f"Rank {rank}" for rank in range(nprocs)]
        assert {(lane.kind, lane.series) for lane in lanes} == {("lane", ("computing", "waiting"))}
        assert source.table() is None and source.status().progress is None


def test_a_lane_is_computing_and_waiting_without_the_first_steps() -> None:
    looks = [
        [told(rank, step, steps=10, waiting=0.001 * rank, seconds=0.001 * (step + 3))]
        for step in range(10)
        for rank in (0, 1)
    ]
    _, points = shown(2, *looks)
    steps = list(range(WARMUP_ROUNDS, 10))
    for rank in (0, 1):
        computing, waiting = (curve(points, 1 + rank, band) for band in (0, 1))
        assert [x for x, _ in computing] == [step + 1 for step in steps]
        assert [y for _, y in waiting] == pytest.approx([rank] * len(steps))
        assert [y for _, y in computing] == pytest.approx([step + 3 - rank for step in steps])


def test_the_loss_is_smoothed() -> None:
    losses = [math.exp(-step) for step in range(10)]
    _, points = shown(1, [told(0, step, 10, loss=loss) for step, loss in enumerate(losses)])
    weights = [KEPT ** (9 - step) for step in range(10)]
    expected = sum(w * y for w, y in zip(weights, losses, strict=True)) / sum(weights)
    line = curve(points, 0, 0)
    assert line[0] == (1, 1.0) and line[-1] == (10, pytest.approx(expected))


@pytest.mark.parametrize(
    ("steps", "size"), [(None, FEWEST), (50, 1), (3 * POINTS, 3), (10**6, MOST)]
)
def test_a_point_of_a_long_run_is_the_mean_of_a_few(steps: int | None, size: int) -> None:
    reports = [told(0, step, steps, seconds=0.001 * (step + 1)) for step in range(100)]
    _, points = shown(1, reports)
    computing = curve(points, 1, 0)
    assert len(computing) == (100 - WARMUP_ROUNDS) // size
    assert len(curve(points, 0, 0)) == math.ceil(100 / size)
    first = range(WARMUP_ROUNDS, WARMUP_ROUNDS + size)
    assert computing[0] == (first[-1] + 1, pytest.approx(sum(first) / size))


def test_a_report_may_stand_for_several_steps() -> None:
    looks = [told(0, step, 100, seconds=0.04, waiting=0.01) for step in range(9, 100, 10)]
    source, points = shown(1, looks)
    assert curve(points, 1, 0)[-1] == (100, pytest.approx(3.0))
    table = source.table()
    assert table is not None and table.rows == (("0", "100", "1.000", "0.0", "4.0", "25"),)


def test_the_step_that_a_pause_made_long_is_left_out() -> None:
    source = RanksFeed(MadeUp(1, [told(0, s, 10) for s in range(5)], [told(0, 5, 10, seconds=9)]))  # type: ignore[arg-type]
    source.advance()
    source.hold()
    source.go_on()
    source.advance()
    assert [x for x, _ in curve(list(source.rows()), 1, 0)] == [4, 5]


def test_figures_and_progress_are_those_of_the_reports() -> None:
    looks = [told(0, step, 20, bytes_sent=10**6) for step in range(8)]
    looks += [told(1, step, waiting=0.003) for step in range(6)]
    source, _ = shown(3, looks)
    table = source.table()
    assert table is not None and table.rows == (
        ("0", "8", "1.000", "8.0", "4.0", "25"),
        ("1", "6", "1.000", "0.0", "4.0", "75"),
        ("2", "0", "–", "0.0", "–", "–"),
    )
    assert source.status().progress == 0  # the slowest rank counts
    source, _ = shown(2, looks)
    status = source.status()
    assert (status.progress, status.note) == (0.3, "Step 6 of 20.")
    assert status.minutes_left == pytest.approx(14 * 0.004 / 60)
    source, _ = shown(1, [told(0, 4)])
    assert (source.status().progress, source.status().note) == (None, "Step 5.")


def test_lanes_of_the_twin_have_one_scale() -> None:
    looks = [told(r, step, 20, seconds=0.004 * (r + 1)) for step in range(20) for r in (0, 1)]
    source, points = shown(2, looks)
    history = History()
    history.extend(points)
    loss, *lanes = draw(source.panels, history, source.table(), "Finished.").get_axes()
    assert lanes[0].get_ylim() == lanes[1].get_ylim() and lanes[1].get_ylim()[1] >= 8
    assert lanes[0].get_xlim() == lanes[1].get_xlim()
    assert [lane.get_title(loc="left") for lane in lanes] == [
        "Rank 0: ms a step",
        "Rank 1: ms a step",
    ]
    assert [lane.get_xlabel() for lane in lanes] == ["", "steps"]
    heights = [axes.get_position().height for axes in (loss, *lanes)]
    assert heights[1] == pytest.approx(heights[2]) and heights[1] < heights[0]


# -- real ----------------------------------------------------------------------------------------


def start(**arguments: Any) -> tuple[LiveRun, Ranks]:
    def train(steps: int, fail_at: int = -1) -> int:
        for step in range(steps):
            if step == fail_at and os.environ["RANK"] == "1":
                raise ValueError("no such thing")
            time.sleep(0.002)
            tell(step, os.getpid(), bytes_sent=1000)
        return steps

    ranks = Ranks(train, 2, deadline=50, **arguments)
    assert isinstance(feed(ranks), ProcessFeed)
    return live(ranks), ranks


def wait_for_rows(run: LiveRun, more_than: int) -> None:
    deadline = time.monotonic() + 20
    while len(run.view.rows) <= more_than:
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def pids(run: LiveRun) -> set[int]:
    """The ranks report their number as their loss."""
    return {round(float(run.view.rows.curve(0, rank)[1][0])) for rank in (0, 1)}


def test_a_run_ends_with_all_results() -> None:
    run, ranks = start(steps=30)
    run.wait()
    assert (run.state, ranks.results) == ("finished", [30, 30])
    assert run.picture is not None and "1     30" in run.picture.alt
    assert run.picture.alt.startswith("Finished. Step 30.")


def test_stop_ends_the_ranks_and_keeps_what_they_reported() -> None:
    run, ranks = start(steps=10**6)
    wait_for_rows(run, 40)
    started = pids(run)
    assert all(psutil.pid_exists(pid) for pid in started)
    run.stop()
    run.join()
    assert not any(psutil.pid_exists(pid) for pid in started)
    run.wait()
    assert (run.state, ranks.results, ranks.running) == ("stopped", [None, None], False)
    assert len(run.view.rows) > 40 and run.picture is not None
    assert run.picture.alt.startswith("Stopped. Step ")


def test_a_pause_holds_the_ranks() -> None:
    run, _ = start(steps=10**6)
    wait_for_rows(run, 40)
    run.pause()
    while run.state != "paused":
        time.sleep(0.01)
    time.sleep(0.2)
    processes = [psutil.Process(pid) for pid in pids(run)]
    before = [sum(each.cpu_times()[:2]) for each in processes]
    time.sleep(0.5)
    assert [sum(each.cpu_times()[:2]) for each in processes] == before
    rows = len(run.view.rows)
    run.resume()
    wait_for_rows(run, rows + 40)
    run.pause()
    run.stop()
    run.wait()
    assert not any(each.is_running() for each in processes)


def test_a_failed_rank_is_shown_and_raised() -> None:
    run, ranks = start(steps=1000, fail_at=10)
    run.join()
    assert run.state == "failed" and not ranks.running
    error = run.view.status["error"]
    assert error.startswith("RankError: rank 1 of 2 raised ValueError: no such thing\n\nTraceback")
    assert run.picture is not None
    words = "Failed: RankError: rank 1 of 2 raised ValueError: no such thing. Step "
    assert run.picture.alt.startswith(words)
    with pytest.raises(RankError, match="no such thing"):
        run.wait()
    assert "1     10" in run.picture.alt  # what it reported before
