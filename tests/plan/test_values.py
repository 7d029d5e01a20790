"""Values that a plan cannot be made of are refused by name; those at the edge are taken."""

from __future__ import annotations

import math
import time

import numpy
import pytest
import torch

from labkit.distributed.collectives.compress import low_rank_numbers
from labkit.distributed.collectives.network_meter import NetworkMeter
from labkit.distributed.collectives.shards import flatten
from labkit.distributed.parallel.data import data_parallel
from labkit.plan.efficiency import StepCost
from labkit.plan.memory import zero_bytes
from labkit.plan.messages import MessageCost, fit_cost, ring_bytes
from labkit.plan.pipeline_schedules import Block, idle, pipeline_schedule
from labkit.plan.splits import Split, TransformerSize, choose_split

SIZE, MESSAGE = TransformerSize(), MessageCost(1e-4, 1e-9)
CALLS = {  # argument: calls with a value of it, the value
    "size": (lambda x: ring_bytes(x, 2), [-1, math.nan, math.inf]),
    "ranks": (lambda x: ring_bytes(1, x), [0, 1.5, math.nan]),
    "latency": (lambda x: MessageCost(x, 1.0), [-1e-9, math.nan, math.inf]),
    "per_byte": (lambda x: MessageCost(1.0, x), [0, -1.0, math.nan]),
    "total": (lambda x: MESSAGE.seconds(x), [0, math.inf, math.nan]),
    "measured": (
        fit_cost,
        [{0: [1.0], 1: [1.0]}, {-1: [1.0], 1: [1.0]}, {1: [math.nan], 2: [1.0]}, {1: [], 2: [1.0]}],
    ),
    "fixed": (lambda x: StepCost(x, 1e-4, MESSAGE, 5), [-1.0, math.nan]),
    "image": (lambda x: StepCost(1e-3, x, MESSAGE, 5), [0.0, -1e-6, math.inf]),
    "gradient": (lambda x: StepCost(1e-3, 1e-4, MESSAGE, x), [-5, math.nan]),
    "batch": (lambda x: StepCost(1e-3, 1e-4, MESSAGE, 5).efficiency(x, 2), [0, -3, math.nan]),
    "forward": (lambda x: pipeline_schedule("GPipe", 2, 2, forward=x), [0, math.inf, math.nan]),
    "backward": (lambda x: pipeline_schedule("GPipe", 2, 2, backward=x), [-1, math.inf, math.nan]),
    "blocks": (idle, [[], [Block(0, 0, 0, "F", 0)], [Block(0, 0, math.inf, "F", 0)]]),
    "each": (lambda x: zero_bytes(1, 1, 1, x), [(-4, -4, -8), (1, 2), (4, 4, math.nan), ()]),
    "shape": (lambda x: low_rank_numbers(x, 1), [(-3, 4), (2.5, 2), (3, -1)]),
    "rank": (lambda x: low_rank_numbers((3, 4), x), [0, 1.5]),
    "memory": (
        lambda x: choose_split(SIZE, devices=1, memory=x, batch=1),
        [0, -1.0, math.nan, math.inf],
    ),
    "data": (lambda x: Split(SIZE, 8, data=x), [0, -1, 1.5]),
    "microbatches": (lambda x: Split(SIZE, 8, microbatches=x), [0]),
    "zero": (lambda x: Split(SIZE, 8, zero=x), [-1, 4]),
    "precision": (lambda x: Split(SIZE, 8, precision=x), ["fp8"]),
    "tensors": (lambda x: flatten([torch.ones(3)], x), []),
    "travel_as": (NetworkMeter, [torch.int8, torch.bool]),
    "bucket_mib": (
        lambda x: data_parallel(torch.nn.Linear(1, 1), bucket_mib=x),
        [0, -1.0, math.nan, math.inf],
    ),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, (_, values) in CALLS.items() for value in values]
)
def test_bad_values_are_named(name, value):
    with pytest.raises((ValueError, TypeError), match=f"^{name}.* must "):
        CALLS[name][0](value)


def test_no_ranks_for_shards():
    with pytest.raises(ValueError, match="ranks must be a whole number of at least 1, got 0"):
        flatten([torch.ones(3)], 0)


def test_values_at_the_edge():
    assert ring_bytes(0, 2) == 0 and ring_bytes(numpy.int64(8), 2) == 8
    assert MessageCost(0, numpy.float32(0.5)).break_even == 0
    assert zero_bytes(numpy.int64(10), 2, 1, (0, 4, 8)) == (0, 40, 40)
    assert low_rank_numbers((0, 4), 1) == 0
    assert StepCost(0, 1e-3, MESSAGE, 0).smallest_batch(0.9, 1) == 1


def test_many_devices_are_planned_in_time():
    began = time.monotonic()
    plan = choose_split(SIZE, devices=2_000_000_000, memory=1, batch=1)
    assert plan.splits[-1].name == "one device" and time.monotonic() - began < 20
