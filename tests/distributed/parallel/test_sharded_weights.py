"""What may be done with a sharded model between its steps, and what is refused."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from support.parallel import seeded
from torch import nn

from labkit import train
from labkit.distributed import init, launch
from labkit.distributed.parallel import sharded_checkpoint
from labkit.distributed.parallel.sharding import Sharded

CLOSE = {"rtol": 1e-5, "atol": 1e-6}
SGD = partial(Sharded, optimizer=torch.optim.SGD)


def one():
    """A layer of one weight, 1."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    return model


def losses(model, step, times, before=lambda: None):
    """The outputs for ones, each before a step that makes it smaller."""
    outputs = []
    for _ in range(times):
        output = model(torch.ones(2, 1)).mean()
        outputs.append(round(output.item(), 4))
        output.backward()
        before()
        step()
    return outputs


def gathered():
    """Stage 3 with `gather` here and there; each list is of outputs or weights."""
    with init():
        found = {}
        for name in ("before", "after", "both", "none"):
            model = one()
            sharded = SGD(model, 3, lr=0.1)

            def step(name=name, sharded=sharded):
                sharded.step()
                if name in ("after", "both"):
                    sharded.gather()

            before = sharded.gather if name in ("before", "both") else (lambda: None)
            found[name] = losses(model, step, 3, before)
            sharded.gather()
            found[name].append(round(model.weight.item(), 4))
        model = one()
        sharded = SGD(model, 3, lr=0.1)
        sharded.gather()
        kept = model.weight.detach()
        model.load_state_dict({"weight": torch.full((1, 1), 0.5)})
        found["loaded"] = losses(model, sharded.step, 2)
        found["kept"] = kept.item()  # still there to read, though the model has gone on
        return found


def test_gathering_changes_no_step_and_what_is_loaded_counts():
    for found in launch(gathered, 2, deadline=60):
        for name in ("before", "after", "both", "none"):
            assert found[name] == [1.0, 0.9, 0.8, 0.7], name
        assert found["loaded"] == [0.5, 0.4] and found["kept"] == 0.5


READ = {
    "sum": lambda m: m.weight.sum(),
    "norm": lambda m: m.weight.norm(),
    "clone": lambda m: m.weight.clone(),
    "finite": lambda m: m.weight.isfinite(),
    "numpy": lambda m: m.weight.detach().numpy(),
    "data": lambda m: m.weight.data.sum(),
    "transposed": lambda m: m.weight.T,
    "item": lambda m: m.bias[0].item(),
    "copy": copy.deepcopy,
    "state": lambda m: m.state_dict(),
    "functional": lambda m: nn.functional.linear(torch.ones(1, 64), m.weight),
    "set": lambda m: nn.init.zeros_(m.weight),
    "load": lambda m: m.load_state_dict({"weight": torch.ones(64, 64), "bias": torch.ones(64)}),
    "repr": lambda m: repr(m.weight),
    "to": lambda m: m.double(),
    "checkpoint": lambda m: sharded_checkpoint.save("never written", m),
}


def read_freed():
    with init():
        model = nn.Linear(64, 64)
        sharded, refused = Sharded(model, 3), {}
        for name, read in READ.items():
            try:
                read(model)
            except RuntimeError as error:
                refused[name] = str(error)
        known = (
            tuple(model.weight.shape),
            model.weight.dtype,
            sum(p.numel() for p in model.parameters()),
        )
        sharded.gather()
        wrong = [
            name for name, read in READ.items() if name not in ("to", "checkpoint") and not read
        ]
        return refused, known, wrong, torch.isfinite(copy.deepcopy(model).weight).all().item()


def test_reading_a_freed_weight_is_refused_with_the_remedy():
    for refused, known, _, finite in launch(read_freed, 2, deadline=60):
        assert refused.keys() == READ.keys()
        assert all("call gather() of their Sharded" in words for words in refused.values())
        assert known == ((64, 64), torch.float32, 64 * 65) and finite


# ---- against one process


def two():
    """Two layers, of which `Used` uses only the first."""
    return nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])


def inputs(number=0):
    return torch.randn(4, 4, generator=torch.Generator().manual_seed(number))


def uses(model, which, x):
    for index in which:
        x = model[index](x).relu()
    return x.square().mean()


SETTINGS = {"lr": 0.1, "weight_decay": 0.1}
ALIKE = [((0,), (0,)), ((0, 1), (0, 1)), ((1,), (1,)), ((0,), (0,))]
OTHERWISE = [((0,), (0,)), ((0, 1), (0,)), ((0,), (1,)), ((1,), (1,)), ((0, 1), (0, 1))]
USED = {1: OTHERWISE, 2: OTHERWISE, 3: ALIKE}
"""For each stage which layers rank 0 uses in a step, and which rank 1."""


def partly_used():
    """Weights after each step of AdamW, for each stage; units of equal size."""
    with init() as world:
        found = {}
        for zero in (1, 2, 3):
            model, found[zero] = seeded(two), []
            sharded = Sharded(model, zero, [*model], **SETTINGS)
            for number, which in enumerate(USED[zero]):
                uses(model, which[world.rank], inputs(number).chunk(2)[world.rank]).backward()
                sharded.step()
            sharded.gather()
            found[zero] = copy.deepcopy(model.state_dict())
        return found


def test_what_takes_no_part_is_left_alone_and_what_one_rank_uses_is_trained():
    results = launch(partly_used, 2, deadline=60)
    for zero, used in USED.items():
        model = seeded(two)
        optimizer = torch.optim.AdamW(model.parameters(), **SETTINGS)
        for number, which in enumerate(used):
            optimizer.zero_grad()
            parts = zip(which, inputs(number).chunk(2), strict=True)
            (sum(uses(model, layers, part) for layers, part in parts) / 2).backward()
            optimizer.step()
        for found in results:
            for name, value in model.state_dict().items():
                torch.testing.assert_close(found[zero][name], value, **CLOSE)


class Whole(torch.optim.SGD):
    """An optimizer that looks at whole tensors: it divides a gradient by its norm."""

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.grad /= p.grad.norm()
        super().step()


def refusals():
    with init():
        model, words = seeded(two), []
        bad = [
            {"optimizer": Whole},
            {"optimizer": torch.optim.Adafactor},
            {"optimizer": torch.optim.LBFGS, "lr": 1.0},
            {"groups": [{"params": model[0].parameters()}]},
            {"groups": [{"params": model.parameters()}, {"params": model[0].weight}]},
            {"groups": [{"params": [nn.Parameter(torch.ones(1))]}]},
            {"lr": -1.0},
        ]
        for arguments in bad:
            try:
                Sharded(model, 3, **arguments)
            except ValueError as error:
                words.append(str(error))
        before = model[0].weight.sum().item()  # untouched
        sharded = Sharded(model, 2, **SETTINGS)
        uses(model, (0, 1), inputs()).backward()
        try:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        except RuntimeError as error:
            words.append(str(error))
        sharded.step()
        try:
            sharded_checkpoint.save("never written", model, sharded.optimizer)
        except ValueError as error:
            words.append(str(error))
        return words, before


def test_refusals():
    expected = seeded(two)[0].weight.sum().item()
    for words, before in launch(refusals, 2, deadline=60):
        for said, part in zip(
            words,
            [
                "treat each number alone, so that it does not matter where it lies: Whole looks",
                "Adafactor looks at whole tensors",
                "LBFGS cannot step",
                *["groups must hold each trained parameter of the model once"] * 3,
                "Invalid learning rate",
                "call clip() of its Sharded",
                "whole_optimizer()",
            ],
            strict=True,
        ):
            assert part in said
        assert before == pytest.approx(expected)


class Fails(nn.Linear):
    def forward(self, x):
        y = super().forward(x).sigmoid()
        if x.shape[0] == 1:
            raise KeyError("on purpose")
        if x.shape[0] == 2:
            y.add_(1)  # sigmoid's backward needs what it returned
        return y


def disturbed():
    """A forward pass that fails, one that spoils what backward needs, then `train`."""
    with init() as world:
        model, errors = seeded(lambda: nn.Sequential(Fails(3, 4), nn.Linear(4, 2))), []
        sharded = SGD(model, 3, [model[0]], lr=0.1)
        for rows, kind in ((1, KeyError), (2, RuntimeError)):
            try:
                model(torch.ones(rows, 3)).sum().backward()
            except kind as error:
                errors.append(str(error))
        x = torch.ones(3, requires_grad=True)
        (x * x).sum().backward()  # no hook of the failed pass is left
        sharded.optimizer.zero_grad()
        sharded.step()  # ends the broken pass
        model.load_state_dict  # noqa: B018
        sharded.gather()
        model.load_state_dict(
            seeded(lambda: nn.Sequential(Fails(3, 4), nn.Linear(4, 2))).state_dict()
        )
        batches = [(torch.eye(4, 3) * (1 + world.rank), torch.arange(4) % 2)] * 3
        for _ in train(model, batches, sharded.optimizer, clip=0.1):
            pass
        sharded.gather()
        weight = model[1].weight.detach().clone()
        for parameter in model.parameters():
            parameter.register_hook(lambda gradient: gradient * float("nan"))
        try:
            list(train(model, batches, sharded.optimizer))
        except FloatingPointError as error:
            errors.append(str(error))
        return errors, weight


def test_errors_leave_nothing_behind_and_train_takes_its_optimizer():
    model = seeded(lambda: nn.Sequential(Fails(3, 4), nn.Linear(4, 2)))
    both = torch.cat([torch.eye(4, 3), 2 * torch.eye(4, 3)]), torch.arange(8) % 2
    for _ in train(model, [both] * 3, torch.optim.SGD(model.parameters(), lr=0.1), clip=0.1):
        pass
    for errors, weight in launch(disturbed, 2, deadline=60):
        assert errors[0] == "'on purpose'" and "changed in place" in errors[1]
        assert "gradient of" in errors[2] and "weights are those before the step" in errors[2]
        torch.testing.assert_close(weight, model[1].weight.detach(), **CLOSE)
