"""Notebook 12: its checks, its sentences for every outcome, its figures, how images are dealt."""

from __future__ import annotations

import pytest
import torch
from matplotlib.figure import Figure
from tests_support import check_is_sound

from labkit import data
from labkit.distributed import World
from labkit.distributed.buckets import MessageCost, fit_cost
from labkit.lessons import lesson_12, predict, ranks_12
from labkit.lessons.ranks_12 import NormRun, Swept, Way
from labkit.widgets import pictures_12

COST = MessageCost(latency=2e-4, per_byte=1e-9)


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (
            lesson_12.resnet_megabytes,
            2 * 3 / 4 * 4 * 11_689_512 / 1e6,
            {
                17.5: "takes 4 bytes",
                70_137_072: "megabytes are wanted",
                280.5: "all ranks send together",
                46.76: "too low",
                93.5: "too high",
                0: "too low",
            },
        ),
        (
            lambda answer: lesson_12.break_even_kib(answer, COST),
            2e-4 / 1e-9 / 1024,
            {
                200_000: "KiB are wanted",
                1024 * 1e-9 / 2e-4: "Upside down",
                100: "too low",
                1000: "too high",
                -195.3: "too low",
            },
        ),
        (
            lesson_12.low_rank_ratio,
            18_432 / 704,
            {
                704 / 18_432: "Upside down",
                18_432 / 352: "rank 1",
                704: "So many numbers travel",
                20: "too low",
                30: "too high",
            },
        ),
        (
            lesson_12.exchanges,
            40,
            {20: "forward pass alone", 41: "too high", 39: "too low", 1: "too low", 0: "too low"},
        ),
    ],
)
def test_checks(check, right, wrong):
    check_is_sound(check, right, wrong)


def test_the_numbers_of_resnet18():
    from torchvision.models import resnet18

    model = resnet18()
    assert 4 * sum(p.numel() for p in model.parameters()) == lesson_12.RESNET18_BYTES
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == lesson_12.NORMS_OF_RESNET18


def messages(ratio, rounds=10):
    one = {size: [COST.seconds(size)] * rounds for size in (16_384, 2**21)}
    many = {16_384: [ratio * 1e-3] * rounds, 2**21: [1e-3] * rounds}
    return {"one message": one, "in buckets": many}


@pytest.mark.parametrize(
    ("ratio", "rounds", "words"),
    [(5, 10, "gather gradients"), (1, 10, "No gain"), (0.5, 10, "No gain"), (5, 3, "too few")],
)
def test_messages(ratio, rounds, words):
    said = lesson_12.read_messages(messages(ratio, rounds), predict(3))
    assert words in said and "buckets of 16 KiB" in said and f"{ratio:.1f}x" in said
    assert "You predicted 3x" in said


def ways(times, rounds=10):
    names = ("fp32", "bf16", "PowerSGD 1")
    sent = (312_000.0, 156_000.0, 10_000.0)
    return {
        name: Way(size, 0.1, [seconds] * rounds)
        for name, size, seconds in zip(names, sent, times, strict=True)
    }


@pytest.mark.parametrize(
    ("times", "rounds", "there", "absent"),
    [
        ((2, 1, 3), 10, ["**bf16 made the step faster", "Slower: PowerSGD 1"], ["None"]),
        ((2, 1, 1), 10, ["**bf16 and PowerSGD 1 made"], ["Slower"]),
        ((2, 2, 2), 10, ["None made the step faster"], ["Slower"]),
        ((2, 1, 3), 3, ["too seldom"], ["Slower", "faster"]),
    ],
)
def test_compression(times, rounds, there, absent):
    said = lesson_12.read_compression(ways(times, rounds))
    assert all(words in said for words in there), said
    assert not any(words in said for words in absent), said
    table = str(lesson_12.compression_table(ways(times, rounds)))
    assert "2.0x" in table and "31.2x" in table and table.count("PowerSGD 1") == 1


def test_sizes_that_travel():
    shapes = [torch.Size((64, 32, 3, 3)), torch.Size((64,))]
    assert ranks_12.sent_size("fp32", shapes) == 4 * (18_432 + 64)
    assert ranks_12.sent_size("bf16", shapes) == ranks_12.sent_size("fp16", shapes) == 2 * 18_496
    assert ranks_12.sent_size("PowerSGD 2", shapes) == 4 * (704 + 64)


@pytest.mark.parametrize(
    ("ends", "words"),
    [((0.8, 0.9, 1.2), "late, but not lost"), ((0.8, 0.9, 0.9), "no gain"), ((1, 2, 1), "no gain")],
)
def test_feedback(ends, words):
    names = ("whole", "rank 2, feedback", "rank 2, no feedback")
    losses = {name: [[3.0] * 18 + [end] * 2] * 2 for name, end in zip(names, ends, strict=True)}
    said = lesson_12.read_feedback(losses)
    assert words in said and f"whole **{ends[0]:.2f}**" in said


def swept(shuffled, by_class):
    sent = {1: 8e6, 8: 1e6, 64: 1.25e5}
    return {
        deal: {h: Swept(sent[h], [a, a]) for h, a in zip(sent, accuracies, strict=True)}
        for deal, accuracies in (("shuffled", shuffled), ("by class", by_class))
    }


def test_periods():
    said = lesson_12.read_periods(swept((0.7, 0.71, 0.5), (0.4, 0.1, 0.1)))
    assert (
        "**shuffled**: 8 steps apart cost at most 3 points and save 8x the bytes; 64 steps" in said
    )
    assert (
        "64 steps apart cost 20 points" in said and "**by class**: 64 steps apart cost 30" in said
    )
    assert "means after every step cost 30 points" in said
    said = lesson_12.read_periods(swept((0.7, 0.7, 0.7), (0.7, 0.7, 0.7)))
    assert said.count("64 steps apart cost at most 3 points and save 64x") == 2
    assert "batch norm" not in said
    table = str(lesson_12.periods_table(swept((0.7, 0.71, 0.5), (0.4, 0.1, 0.1))))
    assert "70.0 %  (70.0, 70.0)" in table and "8.00" in table


def norm_runs(shuffled, by_class, losses=(0.5, 0.6)):
    """Results of two ranks; each argument has accuracies of plain and of synchronized."""

    def of_rank(shift):
        return {
            deal: {
                norm: NormRun([loss] * len(a), [x + shift for x in a], [seconds] * 20)
                for norm, a, loss, seconds in zip(
                    ranks_12.NORMS, accuracies, losses, (1.0, 3.0), strict=True
                )
            }
            for deal, accuracies in zip(ranks_12.DEALS, (shuffled, by_class), strict=True)
        }

    return [of_rank(-0.01), of_rank(0.01)]


SAME = ([0.6, 0.61, 0.62], [0.61, 0.6, 0.62])
BETTER = ([0.4, 0.41, 0.42], [0.7, 0.71, 0.73])


def test_norms_when_synchronizing_helps_with_classes_apart():
    ranks = norm_runs(SAME, BETTER)
    said = lesson_12.read_norms(ranks, predict(5, " %"))
    assert "- shuffled: synchronized over plain **can't tell**: 0.0 (-2.5 to 2.5) points" in said
    assert "- by class: synchronized over plain **30.3 (28.9 to 31.8) points more**" in said
    assert "training loss shows nothing" in said and "**3.0x (3.0 to 3.0)**" in said
    assert "You were 25 points too low" in said
    table = str(lesson_12.norms_table(ranks))
    assert "71.3 %  (70.0, 71.0, 73.0)" in table and "0.60" in table


def test_norms_when_it_does_not():
    said = lesson_12.read_norms(norm_runs(SAME, SAME), predict(5, " %"))
    assert said.count("can't tell") == 2 and "training loss" not in said
    said = lesson_12.read_norms(norm_runs(SAME, BETTER[::-1]), predict(5, " %"))
    assert "**-30.3 (-31.8 to -28.9) points: worse**" in said and "training loss" not in said
    said = lesson_12.read_norms(norm_runs(SAME, BETTER, losses=(0.9, 0.6)), predict(5, " %"))
    assert "more**" in said and "training loss" not in said


def test_norms_of_one_seed():
    said = lesson_12.read_norms(norm_runs(([0.6], [0.6]), ([0.4], [0.7])), predict(5, " %"))
    assert said.count("one seed proves nothing") == 2 and "more**" not in said


def test_figures_for_the_scoreboard():
    figures = lesson_12.figures(norm_runs(SAME, BETTER))
    gain, unit = figures["by class: accuracy gained"]
    assert gain.value == pytest.approx(30.33, abs=0.01) and unit == "points"
    assert figures["step time"][0].value == pytest.approx(3)


def test_deals():
    images = data.fashion(train=200, test=10)
    for deal, classes in (("shuffled", 10), ("by class", 5)):
        shares = []
        for rank in range(2):
            world = World(rank, 2, torch.device("cpu"))
            batches = ranks_12._batches(images, world, deal, 10, seed=0)
            shares.append(batches)
            assert len(batches.labels.unique()) == classes
            assert len(batches.labels) == 100
        joined = torch.cat([share.images for share in shares]).flatten(1)
        assert len(joined.unique(dim=0)) == len(images.train_images.flatten(1).unique(dim=0))


@pytest.mark.parametrize("ranks", [2, 3, 4, 6])
def test_ring_pictures(ranks):
    for step in range(12):
        figure, sentence = pictures_12.ring(ranks, step)
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
    figure, sentence = pictures_12.buckets(measured, cost, 2**21, kib=64)
    assert sentence.startswith("2 MiB in 32 buckets of 64 KiB: 8.5 ms, of which 75% is latency.")
    for line, marks in zip(figure.axes[0].lines[::2], figure.axes[0].lines[1::2], strict=False):
        if len(line.get_xdata()) == len(sizes):  # the model goes through what follows it
            assert list(line.get_ydata()) == pytest.approx(list(marks.get_ydata()))


def test_other_pictures():
    figure = pictures_12.losses({"whole": [[2.0, 1.0], [4.0, 1.0]], "rank 2": [[1.0, 1.0]] * 2})
    assert figure.axes[0].lines[0].get_ydata()[0] == pytest.approx(3)
    outcomes = lesson_12.by_norm(norm_runs(SAME, BETTER))
    figure = pictures_12.accuracies(outcomes, "Title")
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[0] == "shuffled: plain" and len(labels) == 4
