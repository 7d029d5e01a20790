"""What a live view shows of a race, checked against its own records."""

from __future__ import annotations

import math

import numpy
import pytest

from labkit import Race, Recipe, data, models
from labkit.compare.watched import LOSS, METRIC, RaceFeed
from labkit.measure.running_average import KEPT
from labkit.training import Task, classify, next_token
from labkit.watch import Point, feed
from labkit.widgets import live


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    images = data.fashion(train=320, test=100)
    return Recipe(models.convnet, images, steps=8, batch_size=32)


@pytest.fixture
def race(recipe: Recipe) -> Race:
    return Race({"fp32": recipe, "bf16": recipe.but(precision="bf16")}, seeds=2, evaluations=2)


def curve(points: list[Point], panel: int, series: int) -> list[Point]:
    return [p for p in points if (p.panel, p.series) == (panel, series)]


def run(shown: RaceFeed) -> list[Point]:
    points: list[Point] = []
    while shown.advance():
        points += shown.rows()
    return points + list(shown.rows())


def test_a_race_shows_every_step_and_every_evaluation(race: Race) -> None:
    shown = feed(race)
    assert isinstance(shown, RaceFeed)
    assert shown.status().note == "" and shown.table() is None and shown.rows() == []
    points = run(shown)
    for arm, records in enumerate(race.records.values()):
        losses = curve(points, LOSS, arm)
        assert [p.x for p in losses] == [*range(1, 9), 0, *range(1, 9)]
        assert math.isnan(losses[8].y)  # the seeds are not joined
        numpy.testing.assert_allclose(
            [p.x2 for p in losses[:8]], numpy.cumsum(records[0].training_seconds())
        )
        weights = numpy.array([KEPT ** (7 - i) for i in range(8)])
        smooth = (weights * records[1].losses).sum() / weights.sum()
        assert losses[-1].y == pytest.approx(smooth)
        correct = [p for p in curve(points, METRIC, arm) if not math.isnan(p.y)]
        expected = [(s, 100 * a, t) for r in records for s, t, a in r.evaluations]
        numpy.testing.assert_allclose([(p.x, p.y, p.x2) for p in correct], expected)


def test_the_running_table_agrees_with_the_races_own(race: Race) -> None:
    shown = RaceFeed(race)
    run(shown)
    table, own = shown.table(), race.table()
    assert table is not None
    assert (table.headers, table.note) == (own.headers, own.note)
    for mine, theirs in zip(table.rows, own.rows, strict=True):
        for short, whole in zip(mine, theirs, strict=True):
            assert whole == short or whole.startswith(f"{short} (")  # without its interval
    status = shown.status()
    assert status.progress == 1 and status.note == "Seed 2 of 2, round 8 of 8."


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        (classify(), ["mean of a batch, smoothed", "accuracy (%)"]),
        (next_token(), ["mean of a batch, smoothed (nats)", "loss (nats)"]),
    ],
)
def test_labels_are_those_of_the_task(recipe: Recipe, task: Task, labels: list[str]) -> None:
    one = recipe.but(task=task)
    loss, metric = RaceFeed(Race({"a": one, "b": one})).panels
    assert [loss.y_label, metric.y_label] == labels
    assert (loss.title, metric.title) == ("Training loss", f"Test {task.metric.name}")


def test_a_race_that_goes_on_shows_what_it_had(race: Race) -> None:
    first = RaceFeed(race)
    for _ in range(5):
        first.advance()
    before = list(first.rows())
    assert 0 < first.status().progress < 1 and first.status().minutes_left is not None
    again = RaceFeed(race)
    assert again.rows() == before
    assert len(curve(run(again), LOSS, 0)) == 8 - 5 + 1 + 8


def test_a_live_race_is_the_race(race: Race) -> None:
    shown = live(race)
    shown.wait()
    assert race.finished and shown.picture is not None
    assert "bf16" in shown.picture.alt
