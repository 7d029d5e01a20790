"""Sharded with each optimizer that treats numbers alone: groups, clipping, going on elsewhere."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn

from labkit.distributed import init, launch
from labkit.distributed.parallel import sharded_checkpoint
from labkit.distributed.parallel.sharding import Sharded


class Mixed(nn.Module):
    """Channels last, 64 bits, in-place, a layer used twice, a frozen one."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1).to(memory_format=torch.channels_last)
        self.relu = nn.ReLU(inplace=True)
        self.twice = nn.Linear(4, 4)
        self.wide = nn.Linear(4, 3, dtype=torch.float64)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)

    def forward(self, x):
        x = self.relu(self.stem(x)).mean((2, 3))
        x = self.twice(self.relu(self.twice(x))) + self.frozen(x)
        return self.wide(x.double())


def images(number):
    return torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(number))


def groups_of(model):
    return [
        {"params": [model.stem.weight, model.twice.weight], "weight_decay": 0.5},
        {"params": model.stem.bias, "lr": 0.01},
        {"params": [model.twice.bias, *model.wide.parameters()]},
    ]


OPTIMIZERS = [
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (torch.optim.AdamW, {"lr": 0.01, "amsgrad": True}),
    (torch.optim.Adagrad, {"lr": 0.1}),
    (torch.optim.RMSprop, {"lr": 0.01, "centered": True}),
    (torch.optim.NAdam, {"lr": 0.01}),
    (torch.optim.Adamax, {"lr": 0.01}),
]
LIMIT = 0.3


def steps(model, optimizer, clip, number, parts, rank):
    """A few steps with clipping; return the norms before."""
    norms = []
    for step in range(number, number + 3):
        optimizer.zero_grad()
        model(images(step).chunk(parts)[rank]).square().mean().backward()
        norms.append(float(clip()))
        optimizer.step()
    return norms


def clip_alone(model):
    return nn.utils.clip_grad_norm_(model.parameters(), LIMIT)


def mixed(zero, folder):
    """Train, save, go on; and another that loads and goes on. Ranks begin with other weights."""
    with init() as world:
        found = []
        for index, (kind, settings) in enumerate(OPTIMIZERS):
            torch.manual_seed(world.rank)
            model = Mixed()
            sharded = Sharded(
                model,
                zero,
                [model.stem, model.twice],
                optimizer=kind,
                groups=groups_of(model),
                **settings,
            )
            args = model, sharded.optimizer, partial(sharded.clip, LIMIT)
            norms = steps(*args, 0, world.size, world.rank)
            sharded.gather()
            sharded_checkpoint.save(folder / str(index), model, sharded.whole_optimizer(), step=3)
            norms += steps(*args, 3, world.size, world.rank)
            sharded.gather()
            strides = [p.stride() for p in model.parameters()]
            found.append((norms, copy.deepcopy(model.state_dict()), strides))
        return found


def resumed(zero, folder):
    with init() as world:
        found = []
        for index, (kind, settings) in enumerate(OPTIMIZERS):
            torch.manual_seed(world.rank + 5)
            model = Mixed()
            sharded = Sharded(
                model,
                zero,
                [model.twice],
                optimizer=kind,
                groups=groups_of(model),
                **settings | {"lr": 7.0},
            )
            sharded.gather()
            whole = sharded.whole_optimizer()
            assert sharded_checkpoint.load(folder / str(index), model, whole) == {"step": 3}
            sharded.take(whole)
            steps(model, sharded.optimizer, partial(sharded.clip, LIMIT), 3, world.size, world.rank)
            sharded.gather()
            found.append(copy.deepcopy(model.state_dict()))
        return found


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_any_elementwise_optimizer_with_groups_clipped_and_resumed(zero, tmp_path):
    saved = launch(mixed, 2, deadline=90, zero=zero, folder=tmp_path)
    again = launch(resumed, 4, deadline=90, zero=4 - zero, folder=tmp_path)
    for index, (kind, settings) in enumerate(OPTIMIZERS):
        torch.manual_seed(0)
        model = Mixed()
        optimizer = kind(groups_of(model), **settings)
        norms = steps(model, optimizer, partial(clip_alone, model), 0, 1, 0)
        other = Mixed()
        plain = kind(groups_of(other), **settings | {"lr": 7.0})
        sharded_checkpoint.load(tmp_path / str(index), other, plain)
        norms += steps(model, optimizer, partial(clip_alone, model), 3, 1, 0)
        steps(other, plain, partial(clip_alone, other), 3, 1, 0)
        assert norms[0] > LIMIT  # else nothing is clipped
        found = [*(rank[index][1] for rank in saved), *(rank[index] for rank in again)]
        for state in [*found, other.state_dict()]:
            for name, value in model.state_dict().items():
                torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-5)
        for rank in saved:
            assert rank[index][0] == pytest.approx(norms, rel=1e-4)
            assert rank[index][2] == [p.stride() for p in model.parameters()]
