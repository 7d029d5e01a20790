"""Notebook 12: its checks, its sentences for every outcome, how images are dealt."""

from __future__ import annotations

import pytest
import torch
from support.common import check_is_sound

from labkit import data
from labkit.distributed import World
from labkit.lessons import predict
from labkit.lessons.gradient_aggregation import checks, measure, words
from labkit.lessons.gradient_aggregation.measure import NormRun, Swept, Way
from labkit.plan.messages import MessageCost

COST = MessageCost(latency=2e-4, per_byte=1e-9)


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (
            checks.resnet_megabytes,
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
            lambda answer: checks.break_even_kib(answer, COST),
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
            checks.low_rank_ratio,
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
            checks.exchanges,
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
    assert 4 * sum(p.numel() for p in model.parameters()) == checks.RESNET18_BYTES
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == checks.NORMS_OF_RESNET18


def messages(ratio, rounds=10):
    one = {size: [COST.seconds(size)] * rounds for size in (16_384, 2**21)}
    many = {16_384: [ratio * 1e-3] * rounds, 2**21: [1e-3] * rounds}
    return {"one message": one, "in buckets": many}


@pytest.mark.parametrize(
    ("ratio", "rounds", "phrase"),
    [(5, 10, "gather gradients"), (1, 10, "No gain"), (0.5, 10, "No gain"), (5, 3, "too few")],
)
def test_messages(ratio, rounds, phrase):
    said = words.read_messages(messages(ratio, rounds), predict(3))
    assert phrase in said and "buckets of 16 KiB" in said and f"{ratio:.1f}x" in said
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
        ((2, 2, 2), 10, ["None is shown to make the step faster"], ["Slower"]),
        ((2, 2.02, 1.98), 10, ["None is shown to make the step faster"], ["Slower"]),  # within 2 %
        (
            (2, 2.5, 2),
            10,
            ["None is shown to make the step faster", "Slower: bf16;"],
            ["PowerSGD 1"],
        ),
        ((2, 1, 3), 3, ["too seldom"], ["Slower", "faster"]),
    ],
)
def test_compression(times, rounds, there, absent):
    said = words.read_compression(ways(times, rounds))
    assert all(phrase in said for phrase in there), said
    assert not any(phrase in said for phrase in absent), said
    table = str(words.compression_table(ways(times, rounds)))
    assert "2.0x" in table and "31.2x" in table and table.count("PowerSGD 1") == 1


def test_sizes_that_travel():
    shapes = [torch.Size((64, 32, 3, 3)), torch.Size((64,))]
    assert measure.sent_size("fp32", shapes) == 4 * (18_432 + 64)
    assert measure.sent_size("bf16", shapes) == measure.sent_size("fp16", shapes) == 2 * 18_496
    assert measure.sent_size("PowerSGD 2", shapes) == 4 * (704 + 64)


def curves(whole, feedback, without):
    """Losses of 20 steps for each seed, which end as given in the last tenth."""
    names = ("whole", "rank 2, feedback", "rank 2, no feedback")
    ends = zip(names, (whole, feedback, without), strict=True)
    return {name: [[3.0] * 18 + [end] * 2 for end in of_seeds] for name, of_seeds in ends}


@pytest.mark.parametrize(
    ("feedback", "without", "phrase"),
    [
        ([0.9, 0.91, 0.92], [1.2, 1.21, 1.23], "worth 0.30 (0.29 to 0.32). Without it, what rank"),
        ([1.2, 1.21, 1.23], [0.9, 0.91, 0.92], "Feedback makes it worse here, by 0.30"),
        ([0.9, 0.8, 1.0], [0.9, 1.2, 0.8], "can't be told from these seeds: 0.07 ("),
        ([0.9], [1.2], "One seed proves nothing"),
    ],
)
def test_feedback(feedback, without, phrase):
    said = words.read_feedback(curves([0.8] * len(feedback), feedback, without))
    assert phrase in said and "whole **0.80**" in said
    assert ("late, but not lost" in said) == ("worth" in said)


def swept(shuffled, by_class, seeds=(0.0, 0.001, 0.002)):
    """Accuracies for means after 1, 8 and 64 steps; each loses a bit more or less with the seed."""
    sent = {1: 8e6, 8: 1e6, 64: 1.25e5}
    return {
        deal: {
            period: Swept(size, [accuracy + n * seed for seed in seeds])
            for n, (period, size), accuracy in zip((1, 2, 3), sent.items(), accuracies, strict=True)
        }
        for deal, accuracies in (("shuffled", shuffled), ("by class", by_class))
    }


def test_periods():
    results = swept((0.7, 0.699, 0.5), (0.4, 0.6, 0.1))
    said = words.read_periods(results)
    assert (
        "- **shuffled**, against means after every step: 8 steps apart can't tell: +0.0 (-0.2 to "
        "+0.2) points, and 8x fewer bytes; 64 steps apart **19.8 points less** (19.3 to 20.3), and "
        "64x fewer bytes.\n"
    ) in said
    assert "8 steps apart **20.1 (19.9 to 20.3) points more**, and 8x" in said
    assert "by class, means after every step give **30.0 points less** (30.0 to 30.0) than" in said
    table = str(words.periods_table(results))
    assert "70.1 %  (70.0, 70.1, 70.2)" in table and "8.00" in table


def test_periods_that_show_nothing():
    results = swept((0.7, 0.698, 0.698), (0.7, 0.698, 0.698))
    said = words.read_periods(results)
    assert said.count("can't tell: -0.1 (-0.3 to +0.1) points") == 2
    assert said.count("can't tell") == 4 and "batch norm" not in said and "less" not in said
    results["by class"][1].accuracies[:] = [0.71, 0.68, 0.70]  # less on the mean, not for sure
    assert "batch norm" not in words.read_periods(results)
    said = words.read_periods(swept((0.7, 0.6, 0.5), (0.4, 0.3, 0.1), seeds=[0.0]))
    assert said.count("one seed proves nothing") == 4 and "less" not in said
    assert "batch norm" not in said and "inf" not in said


def norm_runs(shuffled, by_class, losses=(0.5, 0.6)):
    """Results of two ranks; each argument has accuracies of plain and of synchronized."""

    def of_rank(shift):
        return {
            deal: {
                norm: NormRun([loss] * len(a), [x + shift for x in a], [seconds] * 20)
                for norm, a, loss, seconds in zip(
                    measure.NORMS, accuracies, losses, (1.0, 3.0), strict=True
                )
            }
            for deal, accuracies in zip(measure.DEALS, (shuffled, by_class), strict=True)
        }

    return [of_rank(-0.01), of_rank(0.01)]


SAME = ([0.6, 0.61, 0.62], [0.61, 0.6, 0.62])
BETTER = ([0.4, 0.41, 0.42], [0.7, 0.71, 0.73])


def test_norms_when_synchronizing_helps_with_classes_apart():
    ranks = norm_runs(SAME, BETTER)
    said = words.read_norms(ranks, predict(5, " %"))
    assert "- shuffled: synchronized over plain **can't tell**: 0.0 (-2.5 to 2.5) points" in said
    assert "- by class: synchronized over plain **30.3 (28.9 to 31.8) points more**" in said
    assert "training loss shows nothing" in said and "**3.0x (3.0 to 3.0)**" in said
    assert "You were 25 points too low" in said
    table = str(words.norms_table(ranks))
    assert "71.3 %  (70.0, 71.0, 73.0)" in table and "0.60" in table


def test_norms_when_it_does_not():
    said = words.read_norms(norm_runs(SAME, SAME), predict(5, " %"))
    assert said.count("can't tell") == 2 and "training loss" not in said
    said = words.read_norms(norm_runs(SAME, BETTER[::-1]), predict(5, " %"))
    assert "**-30.3 (-31.8 to -28.9) points: worse**" in said and "training loss" not in said
    said = words.read_norms(norm_runs(SAME, BETTER, losses=(0.9, 0.6)), predict(5, " %"))
    assert "more**" in said and "training loss" not in said


def test_norms_of_one_seed():
    said = words.read_norms(norm_runs(([0.6], [0.6]), ([0.4], [0.7])), predict(5, " %"))
    assert said.count("one seed proves nothing") == 2 and "more**" not in said


@pytest.mark.parametrize(
    ("shuffled", "phrase"),
    [
        (SAME, "not shown to make plain batch norm fail**: where data is shuffled"),
        (SAME, "A loss of up to 2 points could hide"),
        ((SAME[0], [0.62, 0.6, 0.65]), "A loss of up to 7 points could hide"),
        (BETTER, "**Small batches alone make plain batch norm worse**"),
        (BETTER[::-1], "fail**: it does better"),
        (([0.6], [0.7]), "More seeds would show"),
    ],
)
def test_what_small_batches_alone_do(shuffled, phrase):
    by_class = SAME if len(shuffled[0]) > 1 else ([0.5], [0.5])
    said = words.read_norms(norm_runs(shuffled, by_class), predict(5, " %"))
    assert phrase in said and said.count("mall batches alone") == 1


def test_the_loss_that_shows_nothing_is_that_of_all_ranks():
    """One rank's plain loss is low, the other's so high that the mean shows something."""
    ranks = norm_runs(SAME, BETTER, losses=(0.5, 0.6))
    assert "shows nothing" in words.read_norms(ranks, predict(5, " %"))
    ranks[1]["by class"]["plain"].losses[:] = [2.0] * 3
    assert "shows nothing" not in words.read_norms(ranks, predict(5, " %"))


def test_figures_for_the_scoreboard():
    figures = words.figures(norm_runs(SAME, BETTER))
    gain, unit = figures["by class: accuracy gained"]
    assert gain.value == pytest.approx(30.33, abs=0.01) and unit == "points"
    assert figures["step time"][0].value == pytest.approx(3)


def test_deals():
    images = data.fashion(train=200, test=10)
    for deal, classes in (("shuffled", 10), ("by class", 5)):
        shares = []
        for rank in range(2):
            world = World(rank, 2, torch.device("cpu"))
            batches = measure._batches(images, world, deal, 10, seed=0)
            shares.append(batches)
            assert len(batches.labels.unique()) == classes
            assert len(batches.labels) == 100
        joined = torch.cat([share.images for share in shares]).flatten(1)
        assert len(joined.unique(dim=0)) == len(images.train_images.flatten(1).unique(dim=0))
