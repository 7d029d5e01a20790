"""What a live view shows of a training, checked against its own steps."""

from __future__ import annotations

import pytest

from labkit import Recipe, data, models
from labkit.training import Phases, average_weights, watched
from labkit.training.watched import WARMUP_STEPS, phases_table
from labkit.watch import Point, feed
from labkit.widgets import live


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    images = data.fashion(train=320, test=100)
    return Recipe(models.convnet, images, steps=10, batch_size=32)


def band(points: list[Point], series: int) -> list[Point]:
    return [point for point in points if point.series == series]


def test_bands_are_the_phases_of_the_steps_after_the_first_ones(recipe: Recipe) -> None:
    shown = feed(recipe.training(timed=True))
    assert shown.table() is None and shown.status().minutes_left is None
    while shown.advance():
        pass
    points, steps = list(shown.rows()), shown.results[WARMUP_STEPS:]
    assert len(shown.results) == 10 and shown.panels[0].kind == "stacked"
    for number, name in enumerate(shown.panels[0].series):
        mine = band(points, number)
        assert [point.x for point in mine] == list(range(WARMUP_STEPS + 1, 11))
        expected = [1e3 * getattr(step.phases, name) for step in steps]
        assert [point.y for point in mine] == pytest.approx(expected)
    assert (shown.status().progress, shown.status().note) == (1, "10 of 10 steps.")
    assert shown.rows() == []


def test_a_point_of_a_long_training_is_the_mean_of_a_block(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "POINTS", 5)
    shown = feed(recipe.training())
    while shown.advance():
        pass
    points = band(list(shown.rows()), 1)
    assert [point.x for point in points] == [5, 7, 9]  # the tenth step waits for an eleventh
    forward = [1e3 * step.phases.forward for step in shown.results]
    means = [(forward[i] + forward[i + 1]) / 2 for i in (3, 5, 7)]
    assert [point.y for point in points] == pytest.approx(means)


def test_a_training_that_goes_on_shows_what_is_left(recipe: Recipe) -> None:
    training = recipe.training()
    first = live(training)
    first.wait()
    assert len(first.results) == 10
    assert feed(training).status().progress == 1 and not feed(training).advance()
    again = recipe.training()
    steps = iter(again)
    for _ in range(4):
        next(steps)
    rest = live(again)
    rest.wait()
    assert [step.index for step in rest.results] == list(range(4, 10))
    assert rest.picture is not None and "6 of 6 steps" in rest.picture.alt


def test_what_is_done_between_steps_has_a_band_where_there_is_some(recipe: Recipe) -> None:
    shown = feed(recipe.but(between=(average_weights(0.9),)).training())
    while shown.advance():
        pass
    assert shown.panels[0].series == Phases._fields
    points = band(list(shown.rows()), Phases._fields.index("between"))
    steps = shown.results[WARMUP_STEPS:]
    assert [point.y for point in points] == pytest.approx([1e3 * s.phases.between for s in steps])
    assert min(point.y for point in points) > 0
    assert "between" not in feed(recipe.training()).panels[0].series


def test_the_table_has_medians_and_shares() -> None:
    steps = [Phases(0.001, 0.002, 0.004, 0.003)] * 2 + [Phases(0.001, 0.002, 0.024, 0.003)]
    table = phases_table(steps)
    assert table is not None
    assert table.rows == (
        ("data", "1.00", "6"),
        ("forward", "2.00", "12"),
        ("backward", "4.00", "64"),
        ("optimizer", "3.00", "18"),
        ("whole step", "10.00", "100"),
    )
