"""Every way that is timed gives the mean of all ranks' gradients, and the controls give none."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from labkit import models
from labkit.distributed import init, launch
from labkit.distributed.parallel.averaging import (
    AVERAGINGS,
    CEILING,
    MEETING,
    ThroughMemory,
    time_averagings,
)
from labkit.distributed.parallel.data import average_coalesced


def net():
    torch.manual_seed(0)
    return models.convnet(width=2).eval()  # batch norm would see this rank's images only


def gradients(model, images, labels, after=lambda model: None):
    model.zero_grad()
    cross_entropy(model(images), labels).backward()
    after(model)
    parameters = getattr(model, "module", model).parameters()
    return torch.cat([parameter.grad.flatten() for parameter in parameters])


def by_each(images, labels):
    """Return this rank's own gradients, and those of every way in the second of two steps."""
    with init() as world:
        mine = [part.chunk(world.size)[world.rank] for part in (images, labels)]
        found = {}
        for name, averaging in AVERAGINGS.items():
            model = averaging.wrap(net())
            for _ in range(2):  # DDP sorts its buckets after the first
                found[name] = gradients(model, *mine, averaging.after)
        return gradients(net(), *mine), found


def test_every_way_is_the_joined_batch_and_the_controls_are_not():
    torch.manual_seed(1)
    images, labels = torch.randn(8, 1, 28, 28), torch.arange(8)
    joined = gradients(net(), images, labels)
    for own, found in launch(by_each, images=images, labels=labels, deadline=60):
        for name, gradient in found.items():
            expected = own if name in (CEILING, MEETING) else joined
            close = {"rtol": 2e-2, "atol": 2e-3} if "bf16" in name else {"rtol": 1e-5, "atol": 1e-7}
            torch.testing.assert_close(gradient, expected, **close, msg=name)


def test_shared_memory_gives_the_bits_of_one_message_for_any_number_of_models():
    def both():
        with init() as world:
            through_memory, same = ThroughMemory(), True
            for model in (nn.Linear(9, 3), nn.Linear(90, 30)):  # the second is larger
                inputs = torch.randn(4, model.in_features) * (1 + world.rank)
                for _ in range(3):
                    pair = [
                        gradients(model, inputs, torch.arange(4) % 3, average)
                        for average in (average_coalesced, through_memory)
                    ]
                    same &= torch.equal(*pair)
        return same

    assert launch(both, 2, deadline=60) == [True, True]


def test_each_way_is_timed_as_often():
    options = {"rounds": 2, "make": models.mlp, "shape": (4, 64)}
    first, second = launch(time_averagings, **options, deadline=60)
    assert first == second and list(first) == list(AVERAGINGS)
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in first.values())
