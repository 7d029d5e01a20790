"""ZeRO's three stages against training in one process, and their bytes against the formula."""

from __future__ import annotations

import pytest
import torch
from support.common import ADAMW, tiny_transformer
from support.parallel import resnet18
from torch import nn
from torch.nn import functional as F

from labkit.distributed import init, launch
from labkit.distributed.parallel.sharding import (
    Sharded,
    all_gather,
    flatten,
    reduce_scatter,
    state_bytes,
)
from labkit.models.transformer import next_token_loss
from labkit.plan.memory import zero_bytes

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
STEPS = {"transformer": 4, "resnet18": 2}


def lm():
    model = tiny_transformer()
    return model, [*model.blocks], next_token_loss


def resnet():
    model = resnet18()
    return model, [model.layer1, model.layer2, model.layer3, model.layer4], F.cross_entropy


def batch(name):
    generator = torch.Generator().manual_seed(1)
    if name == "resnet18":
        return torch.randn(4, 3, 16, 16, generator=generator), torch.arange(4)
    text = torch.randint(50, (4, 13), generator=generator)
    return text[:, :-1], text[:, 1:]


MODELS = {"transformer": lm, "resnet18": resnet}


def alone(name):
    """Return the losses and the trained parameters of one process on the whole batch."""
    (model, _, loss), (inputs, targets) = MODELS[name](), batch(name)
    optimizer = torch.optim.AdamW(model.parameters(), **ADAMW)
    losses = []
    for _ in range(STEPS[name]):
        optimizer.zero_grad()
        value = loss(model(inputs), targets)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses, {name: p.detach() for name, p in model.named_parameters()}


def by_hand(name, stages):
    """Return for each stage this rank's losses, the whole parameters and the bytes held."""
    results = {}
    with init() as world:
        inputs, targets = (part.chunk(world.size)[world.rank] for part in batch(name))
        for stage in stages:
            model, units, loss = MODELS[name]()
            sharded, losses = Sharded(model, stage, units, **ADAMW), []
            for _ in range(STEPS[name]):
                value = loss(model(inputs), targets)
                value.backward()
                held = sharded.state_bytes()
                sharded.step()
                losses.append(value.item())
            sharded.gather()
            weights = {n: p.detach() for n, p in model.named_parameters() if world.rank == 0}
            results[stage] = losses, weights, held
    return results


def check(results, name, ranks):
    losses, parameters = alone(name)
    count, units = sum(p.numel() for p in parameters.values()), 5
    for stage in results[0]:
        per_rank = [result[stage][0] for result in results]
        means = [sum(step) / ranks for step in zip(*per_rank, strict=True)]
        assert means == pytest.approx(losses, abs=1e-5), stage
        torch.testing.assert_close(results[0][stage][1], parameters, **CLOSE)
        for result in results:
            predicted, held = zero_bytes(count, ranks, stage), result[stage][2]
            padding = 4 * units * ranks
            for part, wanted in zip(held, predicted, strict=True):
                assert wanted <= part + padding and part <= wanted + 2 * padding, (stage, held)


@pytest.mark.parametrize("ranks", [2, 4])
def test_every_stage_trains_the_transformer_as_one_process_does(ranks):
    check(
        launch(by_hand, ranks, name="transformer", stages=[1, 2, 3], deadline=60),
        "transformer",
        ranks,
    )


def test_the_third_stage_trains_torchvision_s_resnet18_as_one_process_does():
    check(launch(by_hand, 2, name="resnet18", stages=[3], deadline=60), "resnet18", 2)


def by_torch(name):
    """The same with torch: fully_shard (stage 3) and ZeroRedundancyOptimizer (stage 1)."""
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.optim import ZeroRedundancyOptimizer
    from torch.nn.parallel import DistributedDataParallel

    with init() as world:
        inputs, targets = (part.chunk(world.size)[world.rank] for part in batch(name))

        def trained(model, loss, optimizer):
            for _ in range(STEPS[name]):
                optimizer.zero_grad()
                loss(model(inputs), targets).backward()
                optimizer.step()
            return state_bytes(model.parameters(), getattr(optimizer, "optim", optimizer))

        model, units, loss = MODELS[name]()
        for unit in units:
            fully_shard(unit)
        fully_shard(model)
        held = {3: trained(model, loss, torch.optim.AdamW(model.parameters(), **ADAMW))}
        weights = {3: {n: p.detach().full_tensor() for n, p in model.named_parameters()}}
        model, _, loss = MODELS[name]()
        optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, **ADAMW)
        held[1] = trained(DistributedDataParallel(model), loss, optimizer)
        weights[1] = {n: p.detach() for n, p in model.named_parameters()}
        return weights, held


def test_torch_s_own_shards_hold_and_compute_the_same():
    _, parameters = alone("transformer")
    count = sum(p.numel() for p in parameters.values())
    results = launch(by_torch, 2, name="transformer", deadline=60)
    for weights, held in results:
        for stage in (1, 3):
            torch.testing.assert_close(weights[stage], parameters, **CLOSE)
        # fully_shard cuts each tensor in its first dimension; here all are even.
        assert held[3] == zero_bytes(count, 2, 3)
        assert held[1][:2] == zero_bytes(count, 2, 1)[:2]
    # ZeroRedundancyOptimizer deals out whole tensors: the ranks' shares differ, their sum does not.
    assert sum(held[1].optimizer for _, held in results) == 8 * count


# ---- one layer, by hand


def one_layer():
    """A step of stage 3 for one layer, spelled out, with AdamW's first step in one line."""
    with init() as world:
        torch.manual_seed(0)
        layer, inputs = nn.Linear(3, 5), torch.randn(4, 3)
        shard = flatten(layer.parameters(), world.size).chunk(world.size)[world.rank].clone()
        flat = torch.empty(len(shard) * world.size)
        all_gather(flat, shard)
        weight, bias = flat[:15].view(5, 3).requires_grad_(), flat[15:20].requires_grad_()
        mine = inputs.chunk(world.size)[world.rank]
        F.linear(mine, weight, bias).square().mean().backward()
        gradient = reduce_scatter(flatten([weight.grad, bias.grad], world.size))
        shard -= 0.1 * gradient / (gradient.abs() + 1e-8) + 0.1 * 0.01 * shard
        all_gather(flat, shard)
        return flat.detach()[:20], [len(gradient), len(shard)]


def test_one_layer_by_hand():
    torch.manual_seed(0)
    layer, inputs = nn.Linear(3, 5), torch.randn(4, 3)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(inputs).square().mean().backward()
    optimizer.step()
    for numbers, lengths in launch(one_layer, 4, deadline=60):
        torch.testing.assert_close(numbers, flatten(layer.parameters(), 4), **CLOSE)
        assert lengths == [5, 5]


def uneven():
    """Tensors of 7 and 2 numbers on 4 ranks: padding, a frozen one, and one without a gradient."""
    with init() as world:
        model = nn.ParameterDict(
            {name: torch.arange(n) + 1.0 for name, n in (("used", 7), ("unused", 2), ("frozen", 3))}
        )
        model["frozen"].requires_grad_(False)
        sharded = Sharded(model, 2, lr=0.1, weight_decay=0.0)
        (model["used"] * (world.rank + 1)).sum().backward()
        sharded.step()
        return {name: parameter.detach() for name, parameter in model.items()}


def test_lengths_that_do_not_divide():
    for values in launch(uneven, 4, deadline=60):
        torch.testing.assert_close(values["used"], torch.arange(7) + 0.9)
        torch.testing.assert_close(values["unused"], torch.arange(2) + 1.0)
        torch.testing.assert_close(values["frozen"], torch.arange(3) + 1.0)


def between_two_steps():
    """What stage 3 keeps at each moment, and a second backward pass in a step."""
    with init():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
        sharded, seen = Sharded(model, 3, [model[0], model[1]], lr=0.1), []
        seen.append(sharded.state_bytes().weights)
        model[1].register_forward_pre_hook(lambda *_: seen.append(sharded.state_bytes().weights))
        model(torch.ones(1, 8)).sum().backward()
        seen.append(sharded.state_bytes().weights)
        try:
            model(torch.ones(1, 8)).sum().backward()
        except RuntimeError as error:
            return seen, str(error)


def test_the_third_stage_holds_one_unit_at_a_time():
    unit = 4 * (8 * 8 + 8)
    for seen, error in launch(between_two_steps, 2, deadline=60):
        assert seen[:3] == [unit, unit + unit, unit]  # half of two; and the whole second one
        assert "a step takes one backward pass" in error


# ---- the formula


def test_bytes_of_the_formula():
    assert zero_bytes(1000, 4, 0) == (4000, 4000, 8000)
    assert zero_bytes(1000, 4, 1) == (4000, 4000, 2000)
    assert zero_bytes(1000, 4, 2) == (4000, 1000, 2000)
    assert zero_bytes(1000, 4, 3) == (1000, 1000, 2000)
    assert zero_bytes(1001, 4, 3) == (1004, 1004, 2008)  # a shard has 251 numbers
    assert zero_bytes(1000, 4, 3).total == 4000
    assert {zero_bytes(1000, 1, stage).total for stage in range(4)} == {16_000}


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((0, 2, 1), "parameters"),
        ((9, 0, 1), "ranks"),
        ((9, 2, 4), "zero must be a stage of ZeRO, 0 to 3, got 4"),
    ],
)
def test_the_formula_refuses(arguments, word):
    with pytest.raises(ValueError, match=word):
        zero_bytes(*arguments)


def test_refusals():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(ValueError, match="zero must be a stage of ZeRO, 1 to 3, got 0"):
        Sharded(model, 0)

    def shared():
        with init():
            net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
            try:
                Sharded(net, 1, [net, net[0]])
            except ValueError as error:
                return str(error)

    assert "share no parameters" in launch(shared, 1, deadline=60)[0]
