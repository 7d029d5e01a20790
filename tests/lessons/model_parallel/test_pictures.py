"""Figures of notebook 13 show the blocks that they are given."""

from __future__ import annotations

import pytest

from labkit.lessons.model_parallel.pictures import timelines
from labkit.plan.pipeline_schedules import Block, pipeline_schedule
from labkit.widgets.style import COLORS, GRID, picture


def bars(axes):
    """Yield (colour, row, start, end) of each bar."""
    for patch in axes.patches:
        start, row = patch.get_x(), patch.get_y() + patch.get_height() / 2
        color = "#" + "".join(f"{round(255 * part):02X}" for part in patch.get_facecolor()[:3])
        yield color, round(row), start, start + patch.get_width()


@pytest.mark.parametrize("kind", ["GPipe", "1F1B"])
def test_every_block_is_drawn_in_its_row_at_its_time(kind):
    blocks = pipeline_schedule(kind, 3, 4)
    fig, _ = timelines({kind: blocks}, "time, in ms", scale=1000)
    (axes,) = fig.axes
    fills = {"F": COLORS[0], "B": COLORS[4]}
    expected = {(fills[b.kind], b.rank, 1000 * b.start, 1000 * b.end) for b in blocks}
    assert {bar for bar in bars(axes) if bar[0] != GRID} == expected
    numbers = [text.get_text() for text in axes.texts if text.get_text().isdigit()]
    assert numbers == [str(block.microbatch) for block in blocks]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["rank 0", "rank 1", "rank 2"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # rank 0 on top
    assert axes.get_xlabel() == "time, in ms"
    assert axes.get_xlim() == (0, 1000 * 18)


def test_two_timelines_share_the_time_axis_and_each_tells_its_own_idle_time():
    busy = [Block(0, 0.0, 2.0, "F", 0), Block(0, 2.0, 4.0, "B", 0)]
    half = [Block(0, 0.0, 1.0, "F", 0), Block(0, 2.0, 2.001, "F", 1), Block(0, 2.999, 4.0, "B", 0)]
    short = [Block(0, 0.0, 1.0, "F", 0), Block(1, 1.0, 2.0, "F", 0)]
    fig, alt = timelines({"busy": busy, "half": half, "short": short})
    assert [axes.get_xlim() for axes in fig.axes] == [(0, 4)] * 3
    titles = [axes.get_title(loc="left") for axes in fig.axes]
    assert [title.split(" of ")[0] for title in titles] == ["busy: 0%", "half: 50%", "short: 50%"]
    assert alt.endswith("busy: 0% idle; half: 50% idle; short: 50% idle.")
    numbers = [text.get_text() for text in fig.axes[1].texts if text.get_text().isdigit()]
    assert numbers == ["0", "0"]  # microbatch 1 is too narrow for its number
    grounds = [max(end for color, *_, end in bars(axes) if color == GRID) for axes in fig.axes]
    assert grounds == [4, 4, 2]  # what comes after a timeline's end is not idle
    assert picture(fig, alt).png


@pytest.mark.parametrize(("panels", "words"), [({}, "panels must"), ({"a": []}, "blocks must")])
def test_nothing_to_draw(panels, words):
    with pytest.raises(ValueError, match=words):
        timelines(panels)
