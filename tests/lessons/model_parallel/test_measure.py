"""Notebook 13: what its ranks do, on real processes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributed as dist

from labkit import data
from labkit.distributed import Ranks, init, launch
from labkit.lessons.model_parallel import measure, words
from labkit.plan.pipeline_schedules import Block
from labkit.plan.splits import TransformerSize

SIZE = TransformerSize(width=16, depth=2, heads=2, vocabulary=50, context=8)


def batches(count=4):
    tokens = torch.randint(50, (8, 9), generator=torch.Generator().manual_seed(0))
    return [(tokens[:, :-1], tokens[:, 1:])] * count


def test_all_ways_train_as_one_process_does():
    results = launch(
        measure.race, 2, ways=measure.WAYS, size=SIZE, batches=batches(), rounds=2, deadline=60
    )
    means = {way: words._over_ranks([losses[way] for _, losses in results]) for way in measure.WAYS}
    assert means["one process"][-1] < means["one process"][0]
    for way in measure.WAYS:
        assert means[way] == pytest.approx(means["one process"], abs=1e-5), way
        assert len(results[0][0][way]) == 2  # two more warm up


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
            step = measure.step_of(way, SIZE)
            calls.clear()
            step(batches()[0])
            counts[way] = len(calls)
    return counts


def test_tensor_parallel_sums_four_times_in_a_block():
    for counts in launch(sums_of_a_step, 2, deadline=60):
        assert counts == {"one process": 0, "tensor": 4 * SIZE.depth}


def test_training_reports_what_the_planner_says_is_sent():
    ranks = Ranks(
        measure.train, 2, way="tensor", size=SIZE, batches=batches(), steps=3, deadline=60
    )
    reports = list(ranks)
    assert sorted((r.rank, r.step) for r in reports) == [(n, s) for n in range(2) for s in range(3)]
    sent = measure.as_split("tensor", SIZE, 8, 2).sent
    assert {report.bytes_sent for report in reports} == {sent} and sent > 0
    assert all(report.waiting >= 0 for report in reports)
    assert [len(losses) for losses in ranks.results] == [3, 3]


def test_text_of_the_notebook_fits_its_model():
    text = data.speeches(100_000, context=32)
    loss, gradients = measure.alone(
        TransformerSize(16, 1, 2, text.vocabulary, 32), next(iter(text.batches(2)))
    )
    assert loss == pytest.approx(math.log(text.vocabulary), rel=0.05)
    assert words.equal((loss, gradients), (loss, gradients))


def test_the_timeline_is_that_of_a_middle_step():
    """Of five steps that are idle for 10, 50, 30, 20 and 40 %, after two that do not count."""

    def looked_at():
        idle = iter([0.9, 0.0, 0.1, 0.5, 0.3, 0.2, 0.4])
        whole = Block(0, 0.0, 1.0, "F", 0)

        class Planted(measure.Pipeline):
            def timeline(self):
                return [whole._replace(end=1 - next(idle)), whole._replace(start=1.0, end=1.0)]

        measure.Pipeline = Planted
        return measure.timelines(SIZE, batches()[0], {"a": ("1F1B", 2)})

    for found in launch(looked_at, 2, deadline=60):
        assert found["a"][0].end == pytest.approx(0.7)


def test_timelines_of_real_ranks_are_the_same_on_all():
    ways = {"many": ("1F1B", 4), "one": ("GPipe", 1)}
    batch = (torch.zeros(4, 8, dtype=torch.int64),) * 2
    first, second = launch(
        measure.timelines, 2, size=SIZE, batch=batch, ways=ways, steps=1, deadline=60
    )
    assert first == second
    assert {name: len(blocks) for name, blocks in first.items()} == {"many": 16, "one": 4}
