"""The look of figures and the static twin."""

from __future__ import annotations

import base64
import io
import itertools
import math
import random
from typing import Any

import numpy
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from support.synthetic_feed import TABLE, StackedFeed, SyntheticFeed

from labkit.table import Table
from labkit.watch import History
from labkit.widgets import Panel, Picture, Point, figure, label_axes, line_style, picture
from labkit.widgets.style import COLORS, DASHES, label_lines, spread, to_png
from labkit.widgets.twin import as_text, draw, twin


def history_of(feed: SyntheticFeed) -> History:
    history = History()
    while feed.advance():
        pass
    history.extend(feed.rows())
    return history


def pixels(png: bytes) -> numpy.ndarray:
    return numpy.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_the_twin_of_a_large_race_is_small_light_and_opaque() -> None:
    arms = ("float32", "bfloat16", "float16")
    panels = [Panel("Loss", "nats", ("steps", "training seconds"), arms)] * 2
    generator, history = random.Random(0), History()
    for panel in range(2):
        for seed in range(3):
            for arm in range(3):
                history.extend([Point(panel, arm, 0, math.nan)] if seed else [])
                for step in range(400):
                    y = 0.4 + 2 * math.exp(-step / 60) + 0.05 * generator.random()
                    history.extend([Point(panel, arm, step, y, step * (0.03 + 0.01 * arm))])
    png = twin(panels, history, TABLE, "Finished.").png
    assert len(png) <= 60_000
    image = Image.open(io.BytesIO(png))
    assert "transparency" not in image.info and 900 <= image.width <= 1100
    assert (pixels(png)[0] == 255).all() and (pixels(png)[-1] == 255).all()
    for color in COLORS[:3]:  # each arm's colour is there
        rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        assert (abs(pixels(png).astype(int) - rgb).max(axis=2) < 40).any()


def test_the_twin_shows_every_panel_against_every_x_label() -> None:
    feed = SyntheticFeed(30)
    fig = draw(feed.panels, history_of(feed), TABLE, "Finished.")
    labels = [(axes.get_title(loc="left"), axes.get_xlabel()) for axes in fig.get_axes()]
    assert labels == [(panel.title, x_label) for panel in feed.panels for x_label in panel.x_labels]
    texts = {text.get_text() for text in fig.findobj(lambda artist: hasattr(artist, "get_text"))}
    cells = {cell for row in (TABLE.headers, *TABLE.rows) for cell in row}
    assert cells <= texts
    assert "Finished. In brackets: 95 % intervals." in texts


def test_bands_add_up() -> None:
    feed = StackedFeed(30)
    history = history_of(feed)
    (axes,) = draw(feed.panels, history, None, "Finished.").get_axes()
    total = sum(history.curve(0, part)[1] for part in range(4))
    top = max(c.get_paths()[0].vertices[:, 1].max() for c in axes.collections)
    assert top == pytest.approx(float(total.max()))


def test_without_points_or_table_there_is_still_a_twin() -> None:
    for feed in (SyntheticFeed(), StackedFeed()):
        assert twin(feed.panels, History(), None, "Stopped at 0%.").png.startswith(b"\x89PNG")
    text = as_text(SyntheticFeed().panels, History(), None, "Stopped at 0%.")
    assert text.splitlines()[1] == (
        "Training loss, cross-entropy (nats): float32 without a point, bfloat16 without a point"
    )


def test_names_beside_lines_do_not_overlap() -> None:
    generator = random.Random(1)
    for count in range(1, 8):
        wanted = [generator.random() for _ in range(count)]
        placed = spread(wanted, 0.1)
        in_order = sorted(placed)
        gaps = [above - below for below, above in itertools.pairwise(in_order)]
        assert all(gap >= 0.1 - 1e-9 for gap in gaps) and max(placed) <= 1 + 1e-9
        assert sorted(range(count), key=placed.__getitem__) == sorted(
            range(count), key=wanted.__getitem__
        )
    assert spread([0.2, 0.8], 0.1) == [0.2, 0.8]  # nothing moves that need not


def test_names_stand_where_the_lines_end_on_any_scale() -> None:
    fig = figure()
    axes = fig.add_subplot()
    axes.set_yscale("log")
    axes.set_ylim(1, 10_000)
    label_lines(axes, [("middle", 100.0, "black")])
    assert axes.texts[-1].xy == pytest.approx((1.0, 0.5))


def test_lines_differ_in_colour_and_in_dash() -> None:
    assert len({str(line_style(i)) for i in range(len(COLORS))}) == len(COLORS)
    assert len({str(dash) for dash in DASHES}) == len(COLORS)


def test_axes_have_their_labels() -> None:
    axes = figure().add_subplot()
    label_axes(axes, "Loss", "steps", "cross-entropy (nats)")
    assert (axes.get_title(loc="left"), axes.get_xlabel()) == ("Loss", "steps")
    assert axes.texts[0].get_text() == "cross-entropy (nats)"


def test_a_picture_carries_png_and_words() -> None:
    shown = picture(figure(2, 1), alt="an empty figure")
    data, metadata = shown._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]) == shown.png == to_png(figure(2, 1))
    assert data["text/plain"] == repr(shown) == "an empty figure"
    assert metadata["image/png"]["alt"] == "an empty figure"
    assert isinstance(shown, Picture)


@pytest.mark.parametrize("kind", ["lines", "stacked", "lane", "scatter"])
def test_names_that_look_like_mathematics_are_written_as_they_are(kind: Any) -> None:
    """matplotlib reads mathematics between two dollars, and raises where it cannot."""
    name = r"$5 or $\frac_{"
    history = History()
    for x in range(3):
        history.extend([Point(0, 0, x, x), Point(0, 1, x, 2 * x)])
    table = Table((name, "n"), ((name, "1\n2"),), note=name)
    drawn = draw([Panel(name, name, (name,), (name, "b"), kind)], history, table, name)
    to_png(drawn)
    texts = drawn.findobj(Text)
    written = [text for text in texts if r"\frac" in text.get_text()]
    # title, y label, x label, name of the series, header, cell, headline and note
    assert len(written) >= (6 if kind == "lane" else 7)
    assert all(r"\$5 or \$\frac_{" in text.get_text() for text in written)


def test_bad_figures_are_refused() -> None:
    for width, height in ((0, 3), (math.nan, 3), (3, math.inf), (1e6, 3), (3, -1)):
        with pytest.raises(ValueError, match=f"above 0 inches, got {width} and {height}"):
            figure(width, height)
    with pytest.raises(TypeError, match="fig must be of type Figure, got 'figure'"):
        picture("figure", alt="words")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="alt must say in words"):
        picture(Figure(), alt=" ")


def test_bad_panels_are_refused() -> None:
    with pytest.raises(ValueError, match="series must be different names"):
        Panel("t", "y", ("x",), ("a", "a"))
    with pytest.raises(ValueError, match="one or two labels"):
        Panel("t", "y", ("x", "y", "z"), ("a",))
    with pytest.raises(ValueError, match="one or two labels"):
        Panel("t", "y", ("x", "x"), ("a",))
    with pytest.raises(ValueError, match="kind must be one of 'lines', .*, got 'bars'"):
        Panel("t", "y", ("x",), ("a",), kind="bars")  # type: ignore[arg-type]
