"""Notebook 13: what its ranks do, on real processes, and what counts as equal."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributed as dist
from support.ranks import LIMIT

from labkit import data
from labkit.compare import STEP_TIME
from labkit.distributed import Ranks, init, launch
from labkit.lessons.model_parallel import measure, small_model, ways
from labkit.plan.memory import StateBytes
from labkit.plan.pipeline_schedules import Block
from labkit.plan.splits import TransformerSize

SIZE = TransformerSize(width=16, depth=2, heads=2, vocabulary=50, context=8)


def batches(count=4):
    tokens = torch.randint(50, (8, 9), generator=torch.Generator().manual_seed(0))
    return [(tokens[:, :-1], tokens[:, 1:])] * count


# ---- four ways


def test_all_ways_train_as_one_process_does():
    (times, losses), other = launch(
        ways.race, 2, ways=ways.WAYS, size=SIZE, batches=batches(), rounds=2, **LIMIT
    )
    assert losses["one process"][-1] < losses["one process"][0]
    assert list(losses) == list(times.arms) == list(ways.WAYS)
    assert ways.largest_gap(losses) < 1e-5
    assert losses == other[1]  # the means over the ranks are the same on all of them
    assert len(times.ratios("tensor")) == 2  # two more warm up


def test_the_largest_gap_is_found_in_either_direction():
    losses = {"a": [2.0, 1.0], "b": [2.0, 1.25], "c": [1.5, 1.0]}
    assert ways.largest_gap(losses) == 0.5
    assert math.isnan(ways.largest_gap({"a": [1.0], "b": [math.nan]}))


def sums_of_a_step():
    """Return how many all-reduces a step makes on this rank, alone and in tensor parallel."""
    all_reduce, calls = dist.all_reduce, []

    def counted(*arguments, **options):
        calls.append(1)
        return all_reduce(*arguments, **options)

    counts = {}
    with init():
        dist.all_reduce = counted
        for way in ("one process", "tensor"):
            step = ways.step_of(way, SIZE)
            calls.clear()
            step(batches()[0])
            counts[way] = len(calls)
    return counts


def test_tensor_parallel_sums_four_times_in_a_block():
    for counts in launch(sums_of_a_step, 2, **LIMIT):
        assert counts == {"one process": 0, "tensor": 4 * SIZE.depth}


def test_training_tells_what_the_planner_says_is_sent():
    ranks = Ranks(ways.train, 2, way="tensor", size=SIZE, batches=batches(), steps=3, **LIMIT)
    told = list(ranks)
    assert sorted((r.rank, r.step) for r in told) == [(n, s) for n in range(2) for s in range(3)]
    sent = ways.as_split("tensor", SIZE, 8, 2).sent
    assert {step.bytes_sent for step in told} == {sent} and sent > 0
    assert all(step.waiting >= 0 for step in told)
    assert [len(losses) for losses in ranks.results] == [3, 3]
    assert ways.as_split("one process", SIZE, 8, 2).name == "one device"


# ---- pipeline


def test_times_and_idle_shares_are_those_of_the_passes():
    """Five steps that are idle for 10, 50, 30, 20 and 40 %, after two that do not count."""

    def looked_at():
        idle = iter([0.9, 0.0, 0.1, 0.5, 0.3, 0.2, 0.4])

        class Planted(measure.Pipeline):
            def timeline(self):
                share = next(idle)
                return [Block(0, 0.0, 2 - 2 * share, "F", 0), Block(0, 2.0, 2.0, "F", 0)]

        measure.Pipeline = Planted
        return measure.timelines(SIZE, batches()[0], {"a": ("1F1B", 2)}, rounds=5)

    for samples, shown in launch(looked_at, 2, **LIMIT):
        assert shown["a"][0].end == pytest.approx(2 * 0.7)
        assert samples.value("a", measure.IDLE).value == pytest.approx(30)
        assert samples.value("a", STEP_TIME).value == pytest.approx(2000)
        assert samples.value("a").n == 5


def test_pipelines_take_turns_on_all_ranks():
    kinds = {"many": ("1F1B", 4), "one": ("GPipe", 1)}
    first, second = launch(
        measure.timelines, 2, size=SIZE, batch=batches()[0], ways=kinds, rounds=2, **LIMIT
    )
    assert first[1] == second[1]
    assert {name: len(blocks) for name, blocks in first[1].items()} == {"many": 16, "one": 4}
    assert len(first[0].ratios("one", on=STEP_TIME)) == 2


# ---- layers and states


def test_layers_are_timed_whole_and_split():
    samples = launch(measure.layer_times, 2, widths=[8, 16], rounds=2, tokens=4, **LIMIT)[0]
    assert samples.arms == ("whole 8", "split 8", "whole 16", "split 16")
    assert len(samples.ratios("split 16", "whole 16")) == 2


@pytest.mark.parametrize("way", ["ZeRO-2", "fully_shard"])
def test_shared_states_train_as_whole_ones_do(way):
    found, expected = (
        launch(measure.zero, 2, way=each, size=SIZE, batches=batches(2), **LIMIT)
        for each in (way, "data parallel")
    )
    assert measure.same_losses(found, expected)
    table = measure.held_bytes({way: found, "data parallel": expected}, SIZE.parameters)
    for arm in table.arms:
        held, predicted = (table.value(arm, on).value for on in ("together", "predicted"))
        assert held == pytest.approx(predicted, rel=0.01)
        assert held == sum(table.value(arm, part).value for part in StateBytes._fields)


HELD = StateBytes(4_000_000, 4_000_000, 8_000_000)


def test_losses_of_steps_are_compared_as_means_over_the_ranks():
    expected = [([3.0, 1.0], HELD), ([1.0, 1.0], HELD)]
    assert measure.same_losses([([2.0, 1.0], HELD), ([2.0, 1.0], HELD)], expected)
    assert not measure.same_losses([([2.0, 1.0], HELD), ([2.0, 1.001], HELD)], expected)
    assert not measure.same_losses([([2.0, math.nan], HELD)] * 2, expected)


def test_bytes_stand_beside_what_arithmetic_says():
    half = [([1.0], StateBytes(2_000_000, 2_000_000, 4_080_000))] * 2
    table = measure.held_bytes({"data parallel": [([1.0], HELD)] * 2, "ZeRO-3": half}, 1_000_000)
    assert [row[1:] for row in table.table().rows] == [
        ("4.00", "4.00", "8.00", "16.0", "16.0"),
        ("2.00", "2.00", "4.08", "8.08", "8.00"),
    ]


# ---- what is printed as equal


def test_text_of_the_notebook_fits_its_model():
    text = data.speeches(100_000, context=32)
    size = TransformerSize(16, 1, 2, text.vocabulary, 32)
    loss, gradients = small_model.alone(size, next(iter(text.batches(2))))
    assert loss == pytest.approx(math.log(text.vocabulary), rel=0.05)
    assert small_model.equal((loss, gradients), (loss, gradients))


def result(loss=2.0, **changes):
    return loss, {"a": torch.tensor([1.0, -4.0]), "b": torch.tensor([0.5])} | changes


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (result(), True),
        (result(2.0 + 1e-5), True),
        (result(2.0 + 5e-5), False),
        (result(math.nan), False),
        (result(a=torch.tensor([1.0 + 3e-5, -4.0])), True),  # the largest gradient is 4
        (result(a=torch.tensor([1.0 + 6e-5, -4.0])), False),
        (result(a=torch.tensor([math.nan, -4.0])), False),
        (result(b=torch.tensor([0.5, 0.5])), False),
        (result(c=torch.zeros(1)), False),
        ((2.0, {"a": torch.tensor([1.0, -4.0])}), False),
    ],
)
def test_equal_means_equal(other, same):
    assert small_model.equal(other, result()) is same


def test_gradients_of_stages_are_joined():
    a, b = torch.ones(1), torch.ones(2)
    loss, gradients = small_model.joined([(2.0, {"a": a}), (2.0, {"b": b})])
    assert (loss, gradients) == (2.0, {"a": a, "b": b})
