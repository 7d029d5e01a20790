"""Data parallel on real processes: the gradients of one process with the joined batch."""

from __future__ import annotations

import pytest
import torch
from support.common import tiny_data
from support.parallel import gradients, one_step, resnet18, seeded
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from labkit import models, train
from labkit.distributed import init, launch
from labkit.distributed.collectives.network_meter import NetworkMeter
from labkit.distributed.parallel.data import (
    average_coalesced,
    average_gradients,
    data_parallel,
    joined_mean,
    shard,
)
from labkit.training import classify


def mlp():
    return nn.Sequential(nn.Flatten(), models.mlp(3 * 16 * 16, 32)).eval()


def convnet():
    # eval: batch norm's statistics of a part of the batch are another story
    return models.convnet(width=4, channels=3).eval().to(memory_format=torch.channels_last)


MODELS = {"mlp": mlp, "convnet": convnet, "torchvision's resnet18": resnet18}


def batch(sizes):
    """Return the joined batch of ranks that have so many samples each."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(sum(sizes), 3, 16, 16, generator=generator)
    return images, torch.arange(sum(sizes)) % 10


def by_hand(make, part, average):
    """Return loss and gradients of a rank, averaged after backward."""
    model, (images, labels) = seeded(make), part
    loss = F.cross_entropy(model(images), labels)  # not a number where there are no images
    loss.backward()
    average(model, len(labels))
    return gradients(model)


def by_ddp(make, part, **settings):
    model = data_parallel(seeded(make), **settings)
    one_step(model, [part, part])  # DDP sorts its buckets after the first
    return gradients(model)


WAYS = {
    "naive": lambda *arguments: by_hand(*arguments, average_gradients),
    "together": lambda *arguments: by_hand(*arguments, average_coalesced),
    "DDP": by_ddp,
    "DDP in small buckets": lambda *arguments: by_ddp(*arguments, bucket_mib=0.01),
    "DDP with a meter": lambda *arguments: by_ddp(*arguments, meter=NetworkMeter()),
}


def differences(make, sizes, ways):
    """On each rank: {way: {parameter: relative difference from the joined batch's gradient}}."""
    with init() as world:
        model, (images, labels) = seeded(make), batch(sizes)
        F.cross_entropy(model(images), labels).backward()
        expected = gradients(model)
        part = [whole.split(sizes)[world.rank] for whole in (images, labels)]
        return {name: differ(way(make, part), expected) for name, way in ways.items()}


def differ(found, expected):
    assert found.keys() == expected.keys()
    assert all(found[name].stride() == expected[name].stride() for name in found)
    norm = torch.linalg.vector_norm
    return {name: (norm(found[name] - g) / norm(g)).item() for name, g in expected.items()}


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("mlp", [4, 4]),
        ("mlp", [3, 2, 2, 1]),
        ("convnet", [4, 4]),
        ("convnet", [7, 2]),
        ("convnet", [5, 0]),
        ("torchvision's resnet18", [3, 2]),
    ],
)
def test_gradients_equal_those_of_one_process(name, sizes):
    ways = (
        WAYS if name != "torchvision's resnet18" else {"DDP": WAYS["DDP"], "naive": WAYS["naive"]}
    )
    arguments = {"make": MODELS[name], "sizes": sizes, "ways": ways}
    for found in launch(differences, len(sizes), **arguments, deadline=60):
        wrong = {way: max(by_name.values()) for way, by_name in found.items()}
        assert all(difference < 3e-6 for difference in wrong.values()), wrong


def trained(model, batches, accumulate, **settings):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loop = train(model, batches, optimizer, accumulate=accumulate, steps=6, **settings)
    return [step.loss for step in loop], [p.detach() for p in model.parameters()]


def net():
    return seeded(lambda: nn.Sequential(nn.Flatten(), models.mlp(12 * 12, 16)))


def train_in_parallel(batch_size, accumulate):
    with init() as world:
        meter = NetworkMeter()
        model = data_parallel(net(), accumulate=accumulate, meter=meter)
        mine = shard(tiny_data().batches(batch_size), world.rank, world.size)
        result = trained(model, mine, accumulate, task=joined_mean(classify()))
        return *result, meter.take()[0]


@pytest.mark.parametrize(("batch_size", "accumulate"), [(8, 1), (9, 1), (8, 3)])
def test_training_takes_the_steps_of_one_process(batch_size, accumulate):
    losses, parameters = trained(net(), tiny_data().batches(batch_size), accumulate)
    results = launch(train_in_parallel, batch_size=batch_size, accumulate=accumulate, deadline=60)
    means = torch.tensor([result[0] for result in results]).mean(dim=0)
    torch.testing.assert_close(means.tolist(), losses, rtol=1e-5, atol=1e-6)
    size = 4 * sum(p.numel() for p in parameters)
    for _, mine, sent in results:
        torch.testing.assert_close(mine, parameters, rtol=1e-5, atol=1e-6)
        assert sent == 6 * size  # once a step, however many batches it has


def train_naively():
    """The naive version in the same loop: a hook of the optimizer, before its step."""
    with init() as world:
        model = net()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, eps=1e-6)
        optimizer.register_step_pre_hook(lambda *_: average_gradients(model))
        for _ in train(model, shard(tiny_data().batches(8), world.rank, 2), optimizer, steps=4):
            pass
        return [p.detach() for p in model.parameters()]


def test_the_naive_way_in_the_training_loop():
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, eps=1e-6)
    for _ in train(model, tiny_data().batches(8), optimizer, steps=4):
        pass
    for parameters in launch(train_naively, deadline=60):
        torch.testing.assert_close(parameters, list(model.parameters()), rtol=1e-4, atol=1e-5)


def unused_and_frozen():
    """A parameter that only rank 0 used, one that nobody used, and a frozen one."""
    with init() as world:
        values = {name: torch.ones(2) for name in ("both", "first", "none", "frozen")}
        model = nn.ParameterDict({name: nn.Parameter(value) for name, value in values.items()})
        model["frozen"].requires_grad_(False)
        loss = model["both"].sum() * (world.rank + 1)
        if world.rank == 0:
            loss = loss + 4 * model["first"].sum()
        loss.backward()
        average_gradients(model)
        return gradients(model)


def test_a_parameter_without_gradient_counts_as_zero():
    for found in launch(unused_and_frozen, deadline=60):
        assert found["frozen"] is None
        values = {name: found[name].tolist() for name in ("both", "first", "none")}
        assert values == {"both": [1.5, 1.5], "first": [2.0, 2.0], "none": [0.0, 0.0]}


def wrapped():
    """What the wrapper does besides gradients."""
    with init() as world:
        torch.manual_seed(world.rank)
        model = models.convnet(width=2)
        ddp = data_parallel(model)
        start = [p.detach().clone() for p in model.parameters()]
        images = torch.randn(4, 1, 8, 8)
        ddp(images).sum().backward()
        ddp.eval()
        same = torch.equal(ddp(images), model(images))
        buffers = model.norm.running_mean
        return start, buffers, same, isinstance(ddp, DistributedDataParallel)


def test_ranks_start_alike_and_keep_their_own_statistics():
    first, second = launch(wrapped, deadline=60)
    assert all(torch.equal(a, b) for a, b in zip(first[0], second[0], strict=True))
    assert not torch.equal(first[1], second[1])
    assert first[2:] == second[2:] == (True, True)


def evaluation_does_not_count():
    with init():
        ddp = data_parallel(net().train(), accumulate=2, meter=(meter := NetworkMeter()))
        sent = []
        for evaluate in (True, False, True, False, False, False):
            ddp.train(not evaluate)
            images = torch.ones(2, 1, 12, 12)
            if evaluate:
                with torch.no_grad():
                    ddp(images)
            else:
                ddp(images).sum().backward()
            sent.append(meter.take()[0] > 0)
        return sent


def test_evaluation_in_between_does_not_disturb_accumulation():
    for sent in launch(evaluation_does_not_count, deadline=60):
        assert sent == [False, False, False, True, False, True]


def a_pass_that_is_no_step():
    with init():
        ddp = data_parallel(net().train(), accumulate=2, meter=(meter := NetworkMeter()))
        images, sent = torch.ones(2, 1, 12, 12), []
        for _ in range(2):
            ddp(images)  # looked at, without a backward pass
            ddp.zero_grad()
            for _ in range(2):
                ddp(images).sum().backward()
                sent.append(meter.take()[0] > 0)
        return sent


def test_a_pass_outside_of_a_step_does_not_shift_the_sending():
    for sent in launch(a_pass_that_is_no_step, deadline=60):
        assert sent == [False, True, False, True]


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"accumulate": 0}, "accumulate must be a whole number of at least 1, got 0"),
        ({"bucket_mib": 0}, "bucket_mib must be a positive number, got 0"),
        ({"bucket_mib": True}, "bucket_mib must be"),
    ],
)
def test_the_wrapper_refuses(settings, word):
    with pytest.raises(ValueError, match=word):
        data_parallel(nn.Linear(1, 1), **settings)
