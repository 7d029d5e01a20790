"""What a live view shows of a tradeoff: points that move, with the ends of their intervals."""

from __future__ import annotations

import itertools
import time

import numpy
from support.tradeoffs import Planted, made

from labkit.compare import LATENCY, Tradeoff
from labkit.compare.watched import TradeoffFeed
from labkit.watch import Point, feed
from labkit.widgets import live


def points_of(tradeoff: Tradeoff) -> list[Point]:
    """Value, low and high of every variant that has latency and quality."""
    points = []
    for series, name in enumerate(tradeoff.variants):
        x = tradeoff.samples.value(name, LATENCY)
        y = tradeoff.samples.value(name, tradeoff.metric)
        if x and y:
            for part in ("value", "low", "high"):
                points.append(Point(0, series, getattr(x, part), getattr(y, part)))
    return points


def test_only_points_that_have_moved_are_sent() -> None:
    source = feed(made(size=25))
    assert isinstance(source, TradeoffFeed)
    shown: dict[int, list[Point]] = {}
    sizes = []
    while source.advance():
        points = list(source.rows())
        sizes.append(len(points))
        shown |= {
            series: list(moved)
            for series, moved in itertools.groupby(points, key=lambda point: point.series)
        }
        numpy.testing.assert_equal([*itertools.chain(*shown.values())], points_of(source.tradeoff))
        assert source.rows() == []
    assert sizes[:7] == [0, 0, 0, 0, 0, 0, 6]  # rounds, then the first answers of each
    assert set(sizes[7:]) == {0, 6}  # a round moves both, and so do the answers of both


def test_a_stopped_tradeoff_shows_all_its_points_again() -> None:
    tradeoff = made(size=25)
    for _ in itertools.islice(tradeoff, 9):
        pass
    assert len(TradeoffFeed(tradeoff).rows()) == 6


def test_labels_are_those_of_the_metric() -> None:
    (panel,) = TradeoffFeed(made()).panels
    assert (panel.title, panel.y_label) == ("Accuracy against latency", "accuracy (%)")
    assert panel.x_labels == ("milliseconds a batch of 8",)


def test_status_and_figures() -> None:
    variants = {name: [Planted(range(9)), Planted(range(12))] for name in "ab"}
    tradeoff = made(variants, size=50)
    source = feed(tradeoff)
    assert source.table() is None
    assert source.status().note == "Round 0 of 6, 0 of 2 test batches of 2 seeds."
    while source.advance():
        pass
    status, table = source.status(), source.table()
    assert (status.progress, status.minutes_left) == (1, 0)
    assert status.note == "Round 6 of 6, 2 of 2 test batches of 2 seeds."
    assert table == tradeoff.table(brief=True)
    assert table is not None and table.rows[0][1] == "89.50"


def test_a_live_run_can_be_stopped_and_continued() -> None:
    tradeoff = made({"base": Planted((3,), 0.01), "small": Planted((3, 4), 0.01)}, rounds=30)
    run = live(tradeoff)
    deadline = time.monotonic() + 20
    while len(run.view.rows) < 6:
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    run.stop()
    run.wait()
    assert run.state == "stopped" and 0 < tradeoff.progress < 1
    run = live(tradeoff)
    run.wait()
    assert run.state == "finished" and run.picture is not None
    assert run.picture.alt.startswith("Finished. Round 30 of 30, 4 of 4 test batches.\narm")
    assert "small" in run.picture.alt
