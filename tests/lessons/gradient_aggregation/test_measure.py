"""Notebook 12: what its ranks find, on real processes and from planted times."""

from __future__ import annotations

import pytest
import torch
from support.ranks import LIMIT

from labkit import data
from labkit.compare import STEP_TIME
from labkit.distributed import Ranks, World, launch
from labkit.distributed.collectives.compress import low_rank_numbers
from labkit.lessons.gradient_aggregation import batch_norm, measure
from labkit.lessons.gradient_aggregation.small_training import CORRECT, END_LOSS, rank_batches
from labkit.models import convnet
from labkit.plan.messages import ring_bytes

EVERY = (1, 4)


@pytest.fixture(scope="module")
def images():
    return data.fashion(train=200, test=40)


@pytest.mark.parametrize(
    ("ratio", "rounds", "call"),
    [
        (5, 16, "better"),
        (1.01, 16, "no difference that matters"),
        (0.5, 16, "worse"),
        (5, 3, "too few"),
    ],
)
def test_one_message_is_compared_with_the_smallest_buckets(ratio, rounds, call):
    one = {size: [1e-3] * rounds for size in (16_384, measure.GRADIENT)}
    many = {16_384: [ratio * 1e-3] * rounds, measure.GRADIENT: [1e-3] * rounds}
    verdict = measure.gathered({"one message": one, "buckets": many})
    assert verdict.call == call and verdict.estimate.value == pytest.approx(ratio)
    assert (verdict.candidate, verdict.baseline) == (
        "one message of 2048 KiB",
        "buckets of 16 KiB",
    )


def test_messages_are_of_all_kinds_and_sizes():
    sizes = [2**16, measure.GRADIENT]
    for sent in launch(measure.messages, 2, sizes=sizes, rounds=2, **LIMIT):
        assert {
            kind: {s: len(t) for s, t in of_kind.items()} for kind, of_kind in sent.items()
        } == {
            "one message": dict.fromkeys(sizes, 2),
            "buckets": dict.fromkeys(sizes, 2),
        }


def test_what_travels_is_counted_and_what_it_loses_is_bounded(images):
    samples, other = launch(measure.compression, 2, images=images, rounds=2, **LIMIT)
    shapes = [parameter.shape for parameter in convnet(16).parameters()]
    bytes_of = {"fp32": 4, "bf16": 2, "fp16": 2}
    sizes = {
        name: sum(each * shape.numel() for shape in shapes) for name, each in bytes_of.items()
    } | {f"PowerSGD {r}": sum(4 * low_rank_numbers(s, r) for s in shapes) for r in (1, 4)}
    assert samples.arms == tuple(sizes)
    for name, size in sizes.items():
        assert samples.value(name, measure.SENT).value == pytest.approx(ring_bytes(size, 2) / 1e3)
        at_a_gigabit = samples.value(name, measure.AT_A_GIGABIT).value
        assert at_a_gigabit == pytest.approx(1e3 * 8 * ring_bytes(size, 2) / 1e9)
    off = {name: samples.value(name, measure.ERROR).value for name in samples.arms}
    assert off["fp32"] == 0 < off["fp16"] < off["bf16"] < 100 * 2**-8
    assert off["bf16"] < off["PowerSGD 4"] < off["PowerSGD 1"] < 100  # a higher rank keeps more
    assert samples.against("bf16", on=STEP_TIME) == other.against("bf16", on=STEP_TIME)


def test_losses_are_compared_at_their_ends_seed_by_seed(images):
    curves = launch(measure.low_rank_training, 2, images=images, steps=3, seeds=2, **LIMIT)[0]
    assert {name: [len(seed) for seed in seeds] for name, seeds in curves.items()} == {
        "whole": [3, 3],
        "rank 2, feedback": [3, 3],
        "rank 2, no feedback": [3, 3],
    }
    assert curves["whole"][0][0] == pytest.approx(curves["rank 2, feedback"][0][0])  # one start
    planted = {"a": [[3.0] * 18 + [1.0, 2.0]] * 3, "b": [[9.0] * 18 + [1.0, 1.0]] * 3}
    found = measure.ends(planted).verdict("b")
    assert found.estimate.value == pytest.approx(-0.5) and found.call == "better"
    assert measure.ends({"a": [[1.0]], "b": [[2.0]]}).verdict("b").call == "too few"


def test_rarer_means_send_less_and_are_compared_on_their_own_deal(images):
    samples, other = launch(
        measure.periods, 2, images=images, every=EVERY, steps=8, seeds=2, **LIMIT
    )
    verdicts = measure.rarer(samples, EVERY)
    assert {name: verdict.baseline for name, verdict in verdicts.items()} == {
        "shuffled, every 4 steps": "shuffled, every step",
        "by class, every 4 steps": "by class, every step",
    }
    for name, verdict in verdicts.items():
        assert verdict.estimate.n == 2 and verdict.quantity == CORRECT
        sent = [samples.value(arm, measure.SENT).value for arm in (name, verdict.baseline)]
        assert sent[1] == 4 * sent[0]  # 2 means of 8 steps, and 8 of them
    assert verdicts == measure.rarer(other, EVERY)  # the means of all ranks


def test_each_norm_is_raced_on_both_deals(images):
    ranks = Ranks(batch_norm.norms, 2, images=images, batch=8, steps=10, seeds=2, **LIMIT)
    told = list(ranks)
    assert sorted({(step.rank, step.step) for step in told}) == [
        (rank, step) for rank in range(2) for step in range(40)
    ]
    results, times = batch_norm.raced(ranks)
    assert len(times.ratios("synchronized")) == 40
    for arm in results.arms:
        assert len(results.scores(CORRECT)[arm]) == 2, arm
        assert (results.value(arm, END_LOSS) is None) == arm.endswith(batch_norm.AVERAGED)
    of_other_rank, _ = ranks.results[1]
    for arm, seeds in results.scores(CORRECT).items():  # the means of all ranks, on each of them
        for seed, found in seeds.items():
            assert (found == of_other_rank.scores(CORRECT)[arm][seed]).all()
        assert results.value(arm, END_LOSS) == of_other_rank.value(arm, END_LOSS)


def test_a_race_of_norms_that_was_stopped_has_empty_tables(images):
    ranks = Ranks(batch_norm.norms, 2, images=images, batch=8, steps=3, seeds=1, **LIMIT)
    ranks.close()
    results, times = batch_norm.raced(ranks)
    assert {cell for row in results.table().rows for cell in row[1:]} <= {"–", "0 (baseline)"}
    assert [row[0] for row in times.table().rows] == list(batch_norm.NORMS)


def test_deals(images):
    for deal, classes in (("shuffled", 10), ("by class", 5)):
        worlds = [World(rank, 2, torch.device("cpu")) for rank in range(2)]
        shares = [rank_batches(images, world, deal, 10, seed=0) for world in worlds]
        for share in shares:
            assert len(share.labels.unique()) == classes
            assert abs(len(share.labels) - 100) <= (deal == "by class") * 20
        joined = torch.cat([share.images for share in shares]).flatten(1)
        assert len(joined) == 200
        assert len(joined.unique(dim=0)) == len(images.train_images.flatten(1).unique(dim=0))
