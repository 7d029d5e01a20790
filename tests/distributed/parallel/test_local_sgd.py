"""Periodic averaging on real processes: with SGD and H = 1 it is data parallel."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from labkit import checkpoint, models, train
from labkit.distributed import init, launch
from labkit.distributed.parallel.local_sgd import average_parameters, average_ranks

STEPS = 6


def batches(rank):
    generator = torch.Generator().manual_seed(rank)
    return [
        (
            torch.randn(4, 1, 28, 28, generator=generator),
            torch.randint(10, (4,), generator=generator),
        )
        for _ in range(STEPS)
    ]


def trained(every, momentum=0.0):
    """Weights, statistics and the number of averages; `every` None is data parallel."""
    averages = 0

    def counting(tensor):
        nonlocal averages
        averages += 1
        dist.all_reduce(tensor)

    with init() as world:
        torch.manual_seed(0)
        model = models.convnet(width=4)
        wrapped = DistributedDataParallel(model) if every is None else model
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=momentum)
        between = () if every is None else (average_ranks(every, counting),)
        steps = train(wrapped, batches(world.rank), optimizer, between=between)
        indices = [step.index for step in steps]
        assert indices == list(range(STEPS))
        return dict(model.state_dict()), averages


def apart(first, second):
    """The largest difference between two models' parameters."""
    return max(
        (first[name] - second[name]).abs().max().item()
        for name in first
        if "running" not in name and "tracked" not in name
    )


def test_every_step_is_data_parallel_with_sgd():
    data_parallel = launch(trained, 2, deadline=60, every=None)
    for rank in launch(trained, 2, deadline=60, every=1):
        assert apart(rank[0], data_parallel[0][0]) < 1e-5
    for rank in launch(trained, 2, deadline=60, every=3):
        assert apart(rank[0], data_parallel[0][0]) > 1e-3
    with_momentum = launch(trained, 2, deadline=60, every=None, momentum=0.9)
    for rank in launch(trained, 2, deadline=60, every=1, momentum=0.9):
        assert apart(rank[0], with_momentum[0][0]) < 1e-5


@pytest.mark.parametrize(("every", "averages"), [(1, 6), (2, 3), (4, 2), (6, 1), (100, 1)])
def test_how_often_and_that_all_end_with_the_same(every, averages):
    (first, counted), (second, _) = launch(trained, 2, deadline=60, every=every)
    assert counted == averages
    for name, value in first.items():
        assert torch.equal(value, second[name])  # weights and statistics


def in_two_parts(folder, broken_off):
    """Weights after training with averages every 3 steps; resumed after `broken_off` steps."""
    with init() as world:

        def start():
            torch.manual_seed(0)
            model = models.convnet(width=4)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
            return train(model, batches(world.rank), optimizer, between=(average_ranks(3),))

        first, path = start(), f"{folder}/rank {world.rank}"
        for step in first:
            if step.index + 1 == broken_off:
                checkpoint.save(path, first)
        second = start()
        checkpoint.load(path, second)
        assert [step.index for step in second] == list(range(broken_off, STEPS))
        return first.model.state_dict(), second.model.state_dict()


@pytest.mark.parametrize("broken_off", [2, 3, 5])
def test_a_training_that_was_broken_off_goes_on_to_the_bit(tmp_path, broken_off):
    work = {"folder": tmp_path, "broken_off": broken_off}
    for whole, resumed in launch(in_two_parts, 2, deadline=60, **work):
        assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_the_mean_of_all_kinds_of_tensors():
    def averaged():
        with init() as world:
            model = torch.nn.BatchNorm1d(3)
            model.half_weight = torch.nn.Parameter(torch.ones(2, dtype=torch.float16))
            with torch.no_grad():
                for value in (*model.parameters(), model.running_mean):
                    value.fill_(world.rank)
                model.num_batches_tracked.fill_(7)
            average_parameters(model)
            return model.state_dict()

    for state in launch(averaged, 3, deadline=60):
        for name in ("weight", "bias", "running_mean", "half_weight"):
            assert (state[name] == 1).all()
        assert state["running_var"].tolist() == [1.0] * 3
        assert state["num_batches_tracked"] == 7 and state["half_weight"].dtype == torch.float16


@pytest.mark.parametrize("wrong", [0, -3, True])
def test_wrong_period(wrong):
    with pytest.raises(ValueError, match="every must be a whole number of at least 1, got"):
        average_ranks(wrong)
