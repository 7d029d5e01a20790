"""Notebook 11: how near the ways come to the ceiling, in words, for every outcome."""

from __future__ import annotations

import pytest

from labkit.distributed.parallel.averaging import AVERAGINGS, CEILING, MEETING
from labkit.lessons.data_parallel import ways
from labkit.plan.efficiency import StepCost
from labkit.plan.messages import MessageCost

NOISE = [1.0, 1.25] * 15


def times(noise=(), **ratios):
    """A millisecond a step for the ceiling, and longer steps for the others.

    Args:
        noise: names of those whose rounds differ; the others' are all the same.
        ratios: share of the ceiling's speed of each.
    """
    measured = {CEILING: [1e-3] * 30}
    for name, ratio in ratios.items():
        rounds = NOISE if name in noise else [1.0] * 30
        measured[name] = [1e-3 / ratio * each for each in rounds]
    return measured


@pytest.mark.parametrize(
    ("ratio", "noise", "words"),
    [
        (0.95, (), "reaches 90% of the ceiling: the whole interval lies above"),
        (0.5, (), "stays below 90% of the ceiling here: the whole interval lies below"),
        (1.02, ("ddp",), "may reach 90% of the ceiling here, or not"),
    ],
)
def test_ways(ratio, noise, words):
    said = ways.read_ways(times(noise, ddp=ratio))
    assert said.startswith("**ddp comes nearest, with ") and words in said
    assert "\n" not in said  # nothing else was measured, so nothing else is told


def test_the_ceiling_and_the_control_are_no_ways():
    said = ways.read_ways(times(ddp=0.8, **{MEETING: 0.99}))
    assert said.startswith("**ddp comes nearest")


def test_ways_that_are_as_fast_as_the_best_are_named():
    said = ways.read_ways(times(("b",), a=0.9, b=1.0, c=0.7))
    assert "**a comes nearest" in said and "Not told apart from it: b." in said
    assert "told apart" not in ways.read_ways(times(a=0.9, b=0.8, c=0.8))
    assert "from it: b; c." in ways.read_ways(times(a=0.9, b=0.9, c=0.9))


@pytest.mark.parametrize(
    ("naive", "noise", "words"),
    [
        (0.5, (), "1.60x (1.60 to 1.60) as fast: each message costs its latency"),
        (0.95, (), "0.84x (0.84 to 0.84) as fast, slower."),
        (0.9, ("naive",), "0.99x (0.89 to 1.11) as fast, no gain that can be shown."),
        (0.85, ("naive",), "1.05x (0.94 to 1.18) as fast, no gain that can be shown."),
    ],
)
def test_the_naive_way(naive, noise, words):
    said = ways.read_ways(times(noise, **{"naive": naive, "one message": 0.8}))
    assert words in said and "One message is " in said


def test_other_settings_of_ddp_are_compared_with_the_tuned_one():
    others = {"DDP, tuned": 0.8, "DDP, small buckets": 0.4, "DDP, in bf16": 0.84, "naive": 0.1}
    others |= {"DDP, as it comes": 0.9, "DDP, contiguous weights": 0.8}
    said = ways.read_ways(times(("DDP, as it comes",), **others))
    assert "against *tuned*: faster: in bf16 1.05x; slower: small buckets 0.50x; no diff" in said
    assert "no difference shown: as it comes 1.01x, contiguous weights 1.00x." in said
    assert "tuned*" not in ways.read_ways(times(**{"DDP, in bf16": 0.8}))
    assert "tuned*" not in ways.read_ways(times(**{"DDP, tuned": 0.8}))


@pytest.mark.parametrize(
    ("meeting", "noise", "words", "never"),
    [
        (0.96, (), "about 4 of the 10 points that ddp loses are waiting", "no more than"),
        (0.85, (), "ddp loses no more than that", "points"),
        (1.0, (), "no loss by waiting for each other can be shown", "points"),
        (1.1, (MEETING,), "no loss by waiting for each other can be shown", "points"),
    ],
)
def test_where_the_rest_goes(meeting, noise, words, never):
    said = ways.read_ways(times(noise, ddp=0.9, **{MEETING: meeting}))
    assert words in said and never not in said
    assert ("wins that back" in said) == (meeting < 1)


def test_every_way_of_the_notebook_is_told():
    """No name is left out, also of those that have yet to come."""
    measured = times(**{name: 0.9 for name in AVERAGINGS if name != CEILING})
    table = str(ways.ways_table(measured))
    assert all(name in table for name in AVERAGINGS)
    assert "0.90 (0.90 to 0.90)" in table and "0.3  " in table  # 1 ms, three steps
    figures = ways.figures(measured)
    assert len(figures) == len(AVERAGINGS) - 1
    assert figures["naive, of the ceiling"][0].value == pytest.approx(0.9)
    said = ways.read_ways(measured)
    for name in AVERAGINGS:
        tail = name.removeprefix("DDP, ")
        assert name in said or tail in said or name in (CEILING, MEETING)


@pytest.mark.parametrize(
    ("ratio", "noise", "words"),
    [
        (0.3, (), "2 x 0.30 = 0.60 times the work of one that sends nothing: **one process alone"),
        (0.9, (), "still do 2 x 0.90 = 1.80 times the work of one that sends nothing: **it pays"),
        (0.56, ("ddp",), "= 1.00 times the work of one that sends nothing: **can't tell"),
        (0.54, ("ddp",), "= 0.97 times the work of one that sends nothing: **can't tell"),
    ],
)
def test_a_small_network(ratio, noise, words):
    assert words in ways.read_small(times(noise, ddp=ratio), 2)


def cost_with(latency):
    return StepCost(0.0, 1e-4, MessageCost(latency, 1e-12), 310_696)


@pytest.mark.parametrize(
    ("latency", "noise", "words"),
    [
        (1e-6, (), "makes 100% computing. Measured above, for one message a step: 0.90"),
        (1e-6, (), "no rank that is late: that is more"),
        (1e-2, (), "They promise less"),
        (1.4e-3, ("one message",), "So they tell all that is seen here"),
    ],
)
def test_what_the_four_numbers_leave_out(latency, noise, words):
    ratio = 1.0 if noise else 0.9
    said = ways.read_cost(cost_with(latency), times(noise, **{"one message": ratio}))
    assert words in said
    assert f"A step: 0.00 ms + 100 µs an image. A message: {1e6 * latency:.0f} µs" in said
