"""Figures of notebook 12: chunks on the ring, messages, losses, and dots for every seed."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from labkit.compare import Samples
from labkit.lessons.gradient_aggregation import pictures
from labkit.lessons.gradient_aggregation.small_training import CORRECT
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
        "buckets": {size: [COST.seconds(2**21, size)] * 3 for size in sizes},
    }
    cost = fit_cost(measured["one message"])
    figure, sentence = pictures.buckets(measured, cost, 2**21, kib=64)
    model = "2 MiB in 32 buckets of 64 KiB: 8.5 ms by the two numbers, 75% of it latency"
    assert sentence.startswith(model) and sentence.count("Measured: 8.5 ms.")
    _, sentence = pictures.buckets(measured, cost, 2**21, kib=32)  # which was not measured
    assert "64 buckets of 32 KiB: 14.9 ms" in sentence and "Measured" not in sentence
    drawn = [line for line in figure.axes[0].lines if len(line.get_xdata()) == len(sizes)]
    assert len(drawn) == 4
    for marks, model in zip(drawn[:2], drawn[2:], strict=True):  # it goes through what follows it
        assert list(model.get_ydata()) == pytest.approx(list(marks.get_ydata()))


def test_losses_are_means_over_the_seeds():
    figure = pictures.losses({"whole": [[2.0, 1.0], [4.0, 1.0]], "rank 2": [[1.0, 1.0]] * 2})
    assert figure.axes[0].lines[0].get_ydata()[0] == pytest.approx(3)


def test_each_seed_is_a_dot():
    samples = Samples(["a", "not measured", "b"], [CORRECT])
    for arm, right in (("a", 1), ("b", 3)):
        for seed in range(2):
            samples.add_scores(arm, CORRECT, [1, 1, 1, 1][: right + seed] + [0] * 4, seed=seed)
    axes = pictures.accuracies(samples, CORRECT, "Title").axes[0]
    drawn = [(list(line.get_xdata()), line.get_ydata()[0]) for line in axes.get_lines()]
    assert drawn == [([20, 40], 0), ([60, 80], 2)]
    assert [t.get_text() for t in axes.get_yticklabels()] == list(samples.arms)
    assert pictures.accuracies(Samples(["a"], [CORRECT]), CORRECT, "Nothing yet").axes
