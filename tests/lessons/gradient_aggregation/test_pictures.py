"""Figures of notebook 12: chunks on the ring, messages, and dots for every seed."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from labkit.lessons.gradient_aggregation import pictures
from labkit.plan.messages import MessageCost, fit_cost

COST = MessageCost(latency=2e-4, per_byte=1e-9)


@pytest.mark.parametrize("ranks", [2, 3, 4, 6])
def test_ring_pictures(ranks):
    for step in range(12):
        figure, sentence = pictures.ring(ranks, step)
        assert isinstance(figure, Figure)
        last = min(step, 2 * (ranks - 1))
        assert f"After step {last} of {2 * (ranks - 1)}" in figure.axes[0].get_title(loc="left")
        assert f"by each: {last / ranks:.2f}" in sentence
    assert f"Rank 0 has {ranks} of {ranks} sums" in sentence
    assert f"in the end {2 * (ranks - 1) / ranks:.2f} times" in sentence


def test_bucket_picture():
    sizes = [2**k for k in (14, 16, 18, 21)]
    measured = {
        "one message": {size: [COST.seconds(size)] * 3 for size in sizes},
        "in buckets": {size: [COST.seconds(2**21, size)] * 3 for size in sizes},
    }
    cost = fit_cost(measured["one message"])
    figure, sentence = pictures.buckets(measured, cost, 2**21, kib=64)
    text = "2 MiB in 32 buckets of 64 KiB: 8.5 ms (measured: 8.5 ms), of which 75% is latency."
    assert sentence.startswith(text)
    _, sentence = pictures.buckets(measured, cost, 2**21, kib=32)  # which was not measured
    assert sentence.startswith("2 MiB in 64 buckets of 32 KiB: 14.9 ms, of which 86% is latency.")
    for line, marks in zip(figure.axes[0].lines[::2], figure.axes[0].lines[1::2], strict=False):
        if len(line.get_xdata()) == len(sizes):  # the model goes through what follows it
            assert list(line.get_ydata()) == pytest.approx(list(marks.get_ydata()))


def test_other_pictures():
    figure = pictures.losses({"whole": [[2.0, 1.0], [4.0, 1.0]], "rank 2": [[1.0, 1.0]] * 2})
    assert figure.axes[0].lines[0].get_ydata()[0] == pytest.approx(3)
    outcomes = {deal: {"plain": [0.4, 0.5], "other": [0.7, 0.8]} for deal in ("a", "b")}
    axes = pictures.accuracies(outcomes, "Title").axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["a: plain", "a: other", "b: plain", "b: other"]
    drawn = [list(line.get_xdata()) for line in axes.get_lines()[::2]]  # dots; strokes between
    assert drawn == [pytest.approx(each) for each in ([40, 50], [70, 80]) * 2]
