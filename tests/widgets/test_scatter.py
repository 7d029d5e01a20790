"""The picture of a scatter: points, their bars, the front, and names that hide nothing."""

from __future__ import annotations

import itertools
import math
import random

import numpy
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from support.tradeoffs import Planted, done, made

from labkit.compare import LATENCY, Tradeoff
from labkit.table import Table
from labkit.watch import History, feed
from labkit.widgets import Panel, Point, style
from labkit.widgets.scatter import FRONT, RADIUS, Spot, draw, label, place, spots_in
from labkit.widgets.twin import as_text
from labkit.widgets.twin import draw as draw_twin


@pytest.fixture(scope="module")
def tradeoff() -> Tradeoff:
    variants = {
        name: Planted(range(wrong), seconds)
        for name, wrong, seconds in (("base", 8, 0.004), ("half", 10, 0.002), ("bad", 30, 0.003))
    }
    return done(made(variants, size=25))


def spots_of(tradeoff: Tradeoff) -> list[Spot]:
    spots = []
    for series, name in enumerate(tradeoff.variants):
        x = tradeoff.samples.value(name, LATENCY)
        y = tradeoff.samples.value(name, tradeoff.metric)
        assert x is not None and y is not None
        spots.append(Spot(series, name, (x.value, x.low, x.high), (y.value, y.low, y.high)))
    return spots


def names_of(axes: Axes) -> dict[str, Annotation]:
    return {
        each.get_text(): each
        for each in axes.texts
        if isinstance(each, Annotation) and each.get_text() not in ("", FRONT, "accuracy (%)")
    }


def test_points_bars_front_and_names_are_where_they_belong(tradeoff: Tradeoff) -> None:
    _, axes = picture_of(spots_of(tradeoff))
    samples = tradeoff.samples
    points = {n: (samples.value(n, "latency"), samples.value(n, "accuracy")) for n in samples.arms}
    marks = [line for line in axes.lines if line.get_marker() not in ("None", None)]
    assert len({(m.get_marker(), m.get_color()) for m in marks}) == 3
    lines = [line.get_xydata().tolist() for line in axes.lines if line not in marks]
    for mark, (x, y) in zip(marks, points.values(), strict=True):
        assert x is not None and y is not None
        assert mark.get_xydata().tolist() == [[x.value, y.value]]
        assert [[x.low, y.value], [x.high, y.value]] in lines
        assert [[x.value, y.low], [x.value, y.high]] in lines
    assert tradeoff.front == ("half", "base")
    half, base = ((x.value, y.value) for x, y in (points["half"], points["base"]))
    right, bottom = axes.get_xlim()[1], axes.get_ylim()[0]
    assert lines[-4:] == [
        [[half[0], bottom], list(half)],
        [list(half), [base[0], half[1]]],
        [[base[0], half[1]], list(base)],
        [list(base), [right, base[1]]],
    ]
    assert set(names_of(axes)) == {"base", "half", "bad"}
    assert FRONT in {text.get_text() for text in axes.texts}


def picture_of(spots: list[Spot]) -> tuple[Figure, Axes]:
    fig = style.figure(9.2, 4.2)
    axes = fig.subplots()
    draw(axes, spots)
    fig.draw_without_rendering()
    label(axes, spots)
    fig.draw_without_rendering()
    return fig, axes


@pytest.mark.parametrize("seed", range(6))
def test_names_hide_neither_names_nor_points(seed: int) -> None:
    generator = random.Random(seed)
    spots = []
    for i in range(9):  # crowded: a third of them on one another
        x, y = (generator.gauss(50, 5), generator.gauss(90, 1)) if i % 3 else (50.0, 90.0)
        spots.append(Spot(i, f"variant number {i}", (x, x - 3, x + 3), (y, y - 1, y + 1)))
    fig, axes = picture_of(spots)
    # Text's own extent, since an Annotation counts the line to its point as well.
    texts = [Text.get_window_extent(each) for each in names_of(axes).values()]
    assert len(texts) == 9
    for one, other in itertools.combinations(texts, 2):
        assert not one.overlaps(other)
    area = axes.get_window_extent()
    for box in texts:
        assert area.x0 <= box.x0 and box.x1 <= area.x1 and area.y0 <= box.y0 and box.y1 <= area.y1
        for spot in spots:
            x, y = axes.transData.transform((spot.x[0], spot.y[0]))
            assert not box.padded(0.5 * RADIUS * fig.dpi).contains(x, y)


def test_a_name_that_had_to_go_far_has_a_line_to_its_point() -> None:
    spots = [Spot(i, "the same place", (1, 1, 1), (1, 1, 1)) for i in range(12)]
    _, axes = picture_of(spots)
    lines = [each.arrow_patch is not None for each in axes.texts if isinstance(each, Annotation)]
    assert any(lines) and not all(lines)
    assert place([(50, 50)], [(20, 8)], [], (0, 0, 100, 100), 100) == [(69.1, 60.4, False)]
    corner = place([(95, 95)], [(20, 8)], [], (0, 0, 100, 100), 100)
    assert corner == [(75.9, 84.6, False)]  # there is no room on the other sides


def test_times_more_than_tenfold_apart_have_a_log_scale() -> None:
    for slowest, scale, suffix in ((50.0, "linear", ""), (50.1, "log", " (log scale)")):
        fig = style.figure()
        axes = fig.subplots()
        axes.set_xlabel("ms")
        draw(axes, [Spot(i, "", (x, 1, 60), (9, 8, 10)) for i, x in enumerate((5.0, slowest))])
        assert (axes.get_xscale(), axes.get_xlabel()) == (scale, "ms" + suffix)
        fig.draw_without_rendering()


def test_without_an_interval_there_is_no_bar() -> None:
    spot = Spot(0, "a", (2.0, -math.inf, math.inf), (90.0, 80.0, 95.0))
    _, axes = picture_of([spot])
    assert [[2.0, 80.0], [2.0, 95.0]] in [line.get_xydata().tolist() for line in axes.lines]
    assert len(axes.lines) == 1 + 1 + 2  # a bar, a point, two steps of the front
    assert numpy.isfinite(axes.get_xlim()).all()


def test_spots_are_the_last_three_rows_of_a_series() -> None:
    history, panel = History(), Panel("T", "y", ("x",), ("a", "b"), "scatter")
    history.extend([Point(0, 1, 9, 9)] * 3)
    history.extend([Point(0, 1, 2, 90), Point(0, 1, 1, 80), Point(0, 1, 3, 95)])
    assert spots_in(history, 0, panel) == [Spot(1, "b", (2, 1, 3), (90, 80, 95))]


def test_the_twin_has_the_picture_of_the_tradeoff(tradeoff: Tradeoff) -> None:
    source, history = feed(tradeoff), History()
    history.extend([Point(0, 0, 99.0, 1.0)] * 3)  # where a point was before
    history.extend(source.rows())
    twin = draw_twin(source.panels, history, source.table(), "Finished.")
    (_, expected), (axes,) = picture_of(spots_of(tradeoff)), twin.get_axes()
    assert axes.get_title("left") == "Accuracy against latency"
    assert axes.get_xlabel() == "milliseconds a batch of 8"
    for line, other in zip(axes.lines, expected.lines, strict=True):
        numpy.testing.assert_allclose(line.get_xydata(), other.get_xydata(), rtol=0.02)
    assert set(names_of(axes)) == set(names_of(expected))


def test_without_points_or_table_there_is_still_a_twin() -> None:
    panel = Panel("Trade", "correct (%)", ("ms",), ("a", "b"), "scatter")
    history = History()
    draw_twin([panel], history, None, "Stopped.")
    history.extend([Point(0, 1, 2.0, 90.0), Point(0, 1, 1.0, 80.0), Point(0, 1, 3.0, 95.0)])
    text = as_text([panel], history, None, "Stopped.")
    assert text == "Stopped.\nTrade, correct (%): a without a point, b 90"


def test_a_table_wider_than_the_twin_is_written_smaller() -> None:
    sizes = []
    for width in (10, 150):
        table = Table(("a", "b"), (("x" * width, "y"),))
        fig = draw_twin([Panel("T", "y", ("x",), ("a",))], History(), table, "")
        fig.draw_without_rendering()
        (cell,) = (
            text
            for text in fig.findobj(lambda artist: isinstance(artist, Text))
            if text.get_text() == "x" * width
        )
        assert cell.get_window_extent().x1 < fig.bbox.x1
        sizes.append(cell.get_fontsize())
    assert sizes[0] == 10.5 > sizes[1]


def test_of_a_loss_the_front_is_below() -> None:
    """The picture turned upside down: the same steps, from the top edge."""
    places = {"quick": (1.0, 0.4), "beaten": (2.0, 0.5), "slow": (3.0, 0.2)}
    fronts = []
    for sign in (1, -1):
        axes = style.figure().subplots()
        spots = [
            Spot(i, name, (x, x, x), (sign * y,) * 3)
            for i, (name, (x, y)) in enumerate(places.items())
        ]
        draw(axes, spots, higher_is_better=sign < 0)
        steps = [line.get_xydata() for line in axes.lines[-4:]]
        fronts.append([[(x, sign * y) for x, y in step] for step in steps])
        assert steps[0][0][1] == axes.get_ylim()[1 if sign > 0 else 0]
    for below, above in zip(*fronts, strict=True):
        numpy.testing.assert_allclose(below, above)
    assert [step[1] for step in fronts[0][::2]] == [places["quick"], places["slow"]]
