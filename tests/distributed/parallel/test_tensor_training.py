"""Split models in training: clipped by the norm of the whole, called by name, refused in time."""

from __future__ import annotations

import pytest
import torch
from support.parallel import seeded
from torch import nn

from labkit import models, train
from labkit.distributed import init, launch
from labkit.distributed.parallel import sharded_checkpoint
from labkit.distributed.parallel.data import data_parallel
from labkit.distributed.parallel.tensor import ColumnLinear, split, split_blocks, whole
from labkit.training import next_token

LIMIT = 0.05


def mlp():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def text():
    return models.transformer(11, width=8, depth=2, heads=4, context=6)


def cut_mlp(model):
    return split(model, ["0"], ["2"])


def batches(name):
    generator = torch.Generator().manual_seed(1)
    if name == "mlp":
        return [(torch.randn(6, 4, generator=generator), torch.arange(6) % 3) for _ in range(4)]
    tokens = [torch.randint(11, (4, 7), generator=generator) for _ in range(4)]
    return [(part[:, :-1], part[:, 1:]) for part in tokens]


MODELS = {"mlp": (mlp, cut_mlp, {}), "transformer": (text, split_blocks, {"task": next_token()})}


def trained(model, name, clip, part=None):
    """Steps large enough that another norm shows; each batch, or this rank's part of it."""
    settings = MODELS[name][2]
    data = [[x if part is None else x.chunk(2)[part] for x in batch] for batch in batches(name)]
    optimizer = torch.optim.SGD(model.parameters(), lr=5.0, momentum=0.9)
    for _ in train(model, [tuple(batch) for batch in data], optimizer, clip=clip, **settings):
        pass


def clipped():
    """The whole weights for each model, and those of data parallel and fully_shard."""
    from torch.distributed.fsdp import fully_shard

    with init() as world:
        found = {}
        for name, (make, cut, _) in MODELS.items():
            for clip in (LIMIT, None):
                model = cut(seeded(make))
                trained(model, name, clip)
                found[name, clip] = whole(model)
            model = data_parallel(seeded(make))
            trained(model, name, LIMIT, world.rank)
            found[name, "DDP"] = {n: p.detach() for n, p in model.module.named_parameters()}
            model = fully_shard(seeded(make))
            trained(model, name, LIMIT, world.rank)
            found[name, "fully_shard"] = {
                n: p.detach().full_tensor() for n, p in model.named_parameters()
            }
        return found


def test_split_models_are_clipped_by_the_norm_of_the_whole():
    first, second = launch(clipped, 2, deadline=90)
    for (name, clip), weights in first.items():
        model = seeded(MODELS[name][0])
        trained(model, name, LIMIT if isinstance(clip, str) else clip)
        for key, value in model.named_parameters():
            # To the bit among the ranks, or they would drift apart.
            assert torch.equal(weights[key], second[name, clip][key]), (name, clip, key)
            torch.testing.assert_close(weights[key], value.detach(), rtol=1e-4, atol=1e-5)


class Named(nn.Module):
    """Takes its arguments by name, the first one among them."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x, scale=1.0, **more):
        return self.down(self.up(x).relu()) * scale


CALLS = [
    lambda m, x: m(x),
    lambda m, x: m(x=x),
    lambda m, x: m(scale=2.0, x=x),
    lambda m, x: m(x, scale=2.0, other=1),
]


def by_name():
    with init():
        found = []
        for call in CALLS:
            model = split(seeded(Named), ["up"], ["down"])
            x = torch.ones(2, 4, requires_grad=True)
            output = call(model, x)
            output.square().sum().backward()
            found.append((output.detach(), x.grad))
        return found


def test_a_split_module_may_be_called_by_name():
    for found in launch(by_name, 2, deadline=60):
        for call, (output, gradient) in zip(CALLS, found, strict=True):
            x = torch.ones(2, 4, requires_grad=True)
            expected = call(seeded(Named), x)
            expected.square().sum().backward()
            torch.testing.assert_close(output, expected.detach())
            torch.testing.assert_close(gradient, x.grad)


HEADS = [(12, 3), (16, 1), (8, 2), (8, 4)]


def refusals(folder):
    """What is refused, and whether the model was left whole."""
    with init() as world:
        said = []
        for width, heads in HEADS:
            model = models.transformer(50, width=width, depth=1, heads=heads, context=8)
            try:
                split_blocks(model)
                said.append("")
            except ValueError as error:
                model(torch.zeros(1, 8, dtype=torch.long))
                said.append(str(error))
        del world

        class Own(nn.Linear):
            pass

        net = nn.Sequential(Own(4, 4), nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))
        net.append(ColumnLinear(nn.Linear(4, 4)))
        for name in ("0", "1", "2", "none"):
            try:
                split(net, rows=[name])
            except TypeError as error:
                said.append(str(error))
        try:
            sharded_checkpoint.save(folder, cut_mlp(mlp()))
        except ValueError as error:
            said.append(str(error))
        return said


def test_what_cannot_be_cut_is_refused_before_anything_is(tmp_path):
    for said in launch(refusals, 2, deadline=60, folder=tmp_path / "run"):
        heads = [
            f"heads for 2 ranks alike, blocks.0.attention has {n}" if n % 2 else ""
            for _, n in HEADS
        ]
        kinds = ["0 must be an nn.Linear, got Own", "1 must be an nn.Linear, got Parametrized"]
        kinds += ["2 must be an nn.Linear, got ColumnLinear", "none must be an nn.Linear, got None"]
        for words, part in zip(said, [*heads, *kinds, "must not be cut by split"], strict=True):
            assert part in words


@pytest.mark.parametrize("clip", [0.5])
def test_clipping_without_ranks_is_torch_s_own(clip):
    first, second = seeded(mlp), seeded(mlp)
    trained(first, "mlp", clip)
    optimizer = torch.optim.SGD(second.parameters(), lr=5.0, momentum=0.9)
    for x, y in batches("mlp"):
        optimizer.zero_grad()
        nn.functional.cross_entropy(second(x), y).backward()
        nn.utils.clip_grad_norm_(second.parameters(), clip)
        optimizer.step()
    assert all(map(torch.equal, first.parameters(), second.parameters()))
