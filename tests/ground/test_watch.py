"""Anything that gives results one by one can be watched."""

from __future__ import annotations

import math
from typing import Any

import pytest

from labkit.table import Table
from labkit.watch import Feed, History, Panel, Point, feed, watch

PANELS = (
    Panel("Loss", "nats", ("steps", "seconds"), ("train", "test")),
    Panel("Accuracy", "%", ("steps",), ("right",)),
)


def squares(n: int) -> Any:
    for i in range(n):
        yield i, i * i


def test_results_are_kept_and_drawn_in_the_series_they_are_named_for() -> None:
    told = {0: {"test": (1, 2.0, 3.0)}, 1: {"right": (4, 5.0), "train": (6, 7.0)}, 4: {}}
    shown = watch(squares(3), PANELS, lambda result: told[result[1]])
    assert isinstance(shown, Feed) and feed(shown) is shown
    assert shown.advance()
    assert shown.rows() == [Point(0, 1, 1, 2.0, x2=3.0)] and shown.rows() == []
    assert shown.advance() and shown.advance() and not shown.advance()
    assert shown.rows() == [Point(1, 0, 4, 5.0), Point(0, 0, 6, 7.0)]
    assert shown.results == [(0, 0), (1, 1), (2, 4)]


def test_points_go_through_as_they_are_and_the_first_of_two_names_holds() -> None:
    twice = (PANELS[0], Panel("Zoom", "nats", ("steps",), ("train",)))
    shown = watch([1, 2], twice, lambda x: [Point(1, 0, x, x)] if x == 1 else {"train": (x, x)})
    while shown.advance():
        pass
    assert shown.rows() == [Point(1, 0, 1, 1), Point(0, 0, 2, 2)]


@pytest.mark.parametrize(
    ("results", "total", "progress", "note"),
    [
        (squares(3), None, None, "1 models so far."),
        (squares(3), 4, 0.25, "1 of 4 models."),
        ([(0, 0), (1, 1)], None, 0.5, "1 of 2 models."),
        ([], None, 1.0, "0 of 0 models."),
    ],
)
def test_how_far_it_is(results: Any, total: int | None, progress: float | None, note: str) -> None:
    shown = watch(results, PANELS, lambda _: {}, total=total, each="models")
    assert shown.status().minutes_left is None
    shown.advance()
    assert (shown.status().progress, shown.status().note) == (progress, note)
    assert (shown.status().minutes_left is not None) == (progress == 0.5 or progress == 0.25)


def test_the_time_left_is_that_of_the_results_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 2.0, 10.0, 14.0])
    monkeypatch.setattr("labkit.watch.perf_counter", lambda: next(ticks))
    shown = watch(squares(5), PANELS[1], lambda _: {}, total=5)
    shown.advance(), shown.advance()
    assert shown.status().minutes_left == pytest.approx((2 + 4) / 2 * 3 / 60)


def test_more_results_than_were_announced_are_never_more_than_all() -> None:
    shown = watch(squares(5), PANELS[1], lambda _: {}, total=2)
    while shown.advance():
        status = shown.status()
        assert status.progress is not None and status.progress <= 1
        assert status.minutes_left is not None and status.minutes_left >= 0


def test_the_table_is_asked_for_only_when_there_is_something() -> None:
    shown = watch(squares(2), PANELS, lambda _: {}, table=lambda all: Table((str(len(all)),), ()))
    assert shown.table() is None
    shown.advance()
    assert shown.table() == Table(("1",), ())
    assert watch(squares(2), PANELS, lambda _: {}).table() is None


def test_what_cannot_be_watched_is_refused() -> None:
    with pytest.raises(TypeError, match=r"results must be of type Iterable\[~Result\], got 3"):
        watch(3, PANELS, lambda _: {})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"panels must be a Panel or several, got \[\]"):
        watch([], (), lambda _: {})
    with pytest.raises(ValueError, match="total must be 0 or more, got -1"):
        watch([], PANELS, lambda _: {}, total=-1)
    shown = watch([1], PANELS, lambda _: {"wrong": (1, 1)})
    with pytest.raises(ValueError, match="'wrong', which no panel has: .*train"):
        shown.advance()
    for point, message in (
        ([Point(2, 0, 1, 1)], r"\(2, 0\)\], which do not exist"),
        ([Point(1, 1, 1, 1)], r"\(1, 1\)"),
        ([Point(-1, 0, 1, 1)], r"\(-1, 0\)"),
        ({"train": (1,)}, r"point gave \(1,\) for 'train', not \(x, y\)"),
    ):
        with pytest.raises(ValueError, match=message):
            watch([1], PANELS, lambda _, point=point: point).advance()
    with pytest.raises(TypeError, match="got int; make a Feed of an iterable"):
        feed(3)


def test_an_error_of_the_work_passes_and_what_came_before_stays() -> None:
    def failing() -> Any:
        yield 1
        raise RuntimeError("the loss is not a number")

    shown = watch(failing(), PANELS, lambda x: {"right": (x, x)})
    shown.advance()
    with pytest.raises(RuntimeError, match="not a number"):
        shown.advance()
    assert shown.results == [1] and len(shown.rows()) == 1


def test_history_gives_back_each_curve() -> None:
    history = History()
    history.extend([Point(0, 0, 1, 2, 3), Point(0, 1, 4, 5), Point(0, 0, 6, math.nan, 8)])
    assert len(history) == 3
    x, y = history.curve(0, 0)
    assert x.tolist() == [1, 6] and y[0] == 2 and math.isnan(y[1])
    assert history.curve(0, 0, alternative=1)[0].tolist() == [3, 8]
    assert len(history.curve(1, 0)[0]) == 0
