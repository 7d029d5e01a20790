"""A model in stages on real processes against one process with the whole batch."""

from __future__ import annotations

import itertools

import pytest
import torch
from support.parallel import resnet18
from torch import nn
from torch.nn import functional as F

from labkit import models
from labkit.distributed import init, launch
from labkit.distributed.parallel.pipeline import Pipeline
from labkit.distributed.parallel.stages import balanced_cuts, forward_costs, parts, pipeline_stage
from labkit.plan.pipeline_schedules import idle, in_flight, order
from labkit.training import IGNORE, classify, next_token, supervised

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def net():
    torch.manual_seed(0)
    return models.transformer(23, width=16, depth=4, heads=2, context=8)


def text(batch=8):
    tokens = torch.randint(23, (batch, 9), generator=torch.Generator().manual_seed(1))
    return tokens[:, :-1], tokens[:, 1:]


def resnet():
    model = resnet18()
    first = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
    last = nn.Sequential(model.avgpool, nn.Flatten(), model.fc)
    return nn.Sequential(first, model.layer1, model.layer2, model.layer3, model.layer4, last).eval()


def images(batch=4):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, 32, 32, generator=generator), torch.arange(batch)


def padded():
    """Texts with 8, 2, 0, … targets that count: a microbatch may have few or none."""
    inputs, targets = map(torch.clone, text())
    for row, counted in enumerate((8, 2, 0, 0, 5, 1, 8, 3)):
        targets[row, counted:] = IGNORE
    return inputs, targets


def one_process(model, task, batch):
    loss = task.loss(model, batch)
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters()}


def pipelined(make, batch, task, cases):
    """Compare on each rank; return, for each case, whose gradients are here, and the passes."""
    with init() as world:
        loss, expected = one_process(make(), task, batch)
        results = []
        for kind, microbatches in cases:
            model = make()
            mine = pipeline_stage(model, world.rank, world.size)
            pipeline = Pipeline(mine, task, microbatches, kind)
            torch.testing.assert_close(pipeline.step(batch), loss, **CLOSE)
            for name, gradient in grads(model).items():
                torch.testing.assert_close(gradient, expected[name], **CLOSE)
            results.append((list(grads(model)), [(b.kind, b.microbatch) for b in pipeline.blocks]))
        return results


def grads(model):
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def check(ranks, cases, make, batch, task):
    """Each parameter has its gradient on one rank and no other, and ranks keep their order."""
    work = {"make": make, "batch": batch, "task": task, "cases": cases}
    everyones = launch(pipelined, ranks, deadline=60, **work)
    for (kind, microbatches), results in zip(cases, zip(*everyones, strict=True), strict=True):
        names = [name for here, _ in results for name in here]
        assert sorted(names) == sorted(name for name, _ in make().named_parameters())
        for rank, (_, done) in enumerate(results):
            assert done == order(kind, ranks, microbatches, rank)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_loss_and_gradients_are_those_of_one_process(ranks):
    cases = [("GPipe", 1), ("GPipe", 2), ("1F1B", 4), ("1F1B", 8), ("GPipe", 8)]
    check(ranks, cases, net, text(), next_token())


@pytest.mark.parametrize("ranks", [2, 4])
def test_microbatches_weigh_by_the_targets_that_count(ranks):
    check(
        ranks, [("GPipe", 1), ("GPipe", 2), ("1F1B", 4), ("1F1B", 8)], net, padded(), next_token()
    )


def test_classes_that_weigh_differently():
    def classifier():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))

    batch = torch.randn(8, 6, generator=torch.Generator().manual_seed(1)), torch.arange(8) // 3
    task = classify(label_smoothing=0.1, class_weights=(0.2, 3.0, 1.0))
    check(2, [("GPipe", 4), ("1F1B", 8)], classifier, batch, task)


def test_resnet():
    cases = [("GPipe", 1), ("GPipe", 2), ("1F1B", 2)]
    check(2, cases, resnet, images(), classify())


def test_gradients_add_up_over_steps_and_the_timeline_is_of_the_last():
    def twice():
        with init() as world:
            model = net()
            pipeline = Pipeline(pipeline_stage(model, world.rank, 2), next_token(), 4, "1F1B")
            for _ in range(2):
                pipeline.step(text())
            return grads(model), pipeline.timeline()

    _, expected = one_process(net(), next_token(), text())
    results = launch(twice, 2, deadline=60)
    for gradients, blocks in results:
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, 2 * expected[name], **CLOSE)
        assert blocks == results[0][1]
    assert len(blocks) == 2 * 2 * 4
    assert min(block.start for block in blocks) == 0
    assert 0 <= idle(blocks) < 1
    ends = {(block.rank, block.kind, block.microbatch): block.end for block in blocks}
    for block in blocks:  # nobody starts before what he needs is there: the clock is shared
        giver = block.rank + (1 if block.kind == "B" else -1)
        assert block.start >= ends.get((giver, block.kind, block.microbatch), 0)


class Kept:
    """What autograd keeps in place of a tensor; counts how many of them are alive."""

    alive = most = 0

    def __init__(self, tensor):
        self.tensor = tensor.detach()  # the tensor itself would be a cycle
        Kept.alive += 1
        Kept.most = max(Kept.most, Kept.alive)

    def __del__(self):
        Kept.alive -= 1


@pytest.mark.parametrize("kind", ["GPipe", "1F1B"])
def test_as_many_microbatches_are_kept_as_predicted(kind):
    def most():
        with init() as world:
            mine, found = pipeline_stage(net(), world.rank, 2), []
            for microbatches in (2, 8):
                pipeline = Pipeline(mine, next_token(), microbatches, kind)
                pipeline.step(text())  # torch's trial run is in it
                Kept.most = 0
                with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
                    pipeline.step(text())
                found.append((Kept.most, Kept.alive))
            return found

    for rank, ((of_two, _), (of_eight, alive)) in enumerate(launch(most, 2, deadline=60)):
        two, eight = (in_flight(kind, 2, m, rank) for m in (2, 8))
        assert of_two > 0 and of_eight * two == of_two * eight
        assert alive == 0


def test_a_transformer_is_cut_by_blocks():
    model = net()
    pieces = parts(model)
    assert len(pieces) == 6
    assert [len(pipeline_stage(model, rank, 4)) for rank in range(4)] == [2, 1, 1, 2]
    first, second = (pipeline_stage(model, rank, 2) for rank in range(2))
    inputs, _ = text()
    assert torch.equal(second(first(inputs)), model(inputs))
    mine = {id(p) for part in (first, second) for p in part.parameters()}
    assert mine == {id(p) for p in model.parameters()}


def test_costs_are_counted():
    model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 16))
    assert forward_costs(model, torch.ones(3, 8)) == [2 * 3 * 8 * 4, 0, 2 * 3 * 4 * 16]


@pytest.mark.parametrize(
    ("prices", "stages", "ends"),
    [
        ([1, 1, 1, 1], 2, [2, 4]),
        ([1, 1, 1], 2, [1, 3]),  # the first stage gets less
        ([0, 1, 1, 1, 1, 4], 2, [5, 6]),
        ([5, 1, 1, 1, 1, 1], 2, [1, 6]),
        ([1, 9, 1], 3, [1, 2, 3]),
        ([2], 1, [1]),
        ([0, 0, 0, 0], 3, [1, 2, 4]),
        ([3, 0, 0, 3, 0], 2, [1, 5]),
        ([1, 1, 1, 1, 1, 1, 1], 3, [1, 4, 7]),
    ],
)
def test_the_dearest_stage_is_as_cheap_as_can_be(prices, stages, ends):
    pieces = balanced_cuts(prices, stages)
    assert [piece.stop for piece in pieces] == ends
    assert [index for piece in pieces for index in piece] == list(range(len(prices)))
    dearest = max(sum(prices[piece.start : piece.stop]) for piece in pieces)
    for other in itertools.combinations(range(1, len(prices)), stages - 1):
        bounds = [0, *other, len(prices)]
        assert dearest <= max(sum(prices[a:b]) for a, b in itertools.pairwise(bounds))


def test_long_chains_are_cut_in_time():
    assert [len(piece) for piece in balanced_cuts([1] * 3000, 1500)] == [2] * 1500


def test_tied_weights_are_refused():
    model = net()
    model.head.weight = model.embedding.token.weight
    with pytest.raises(ValueError, match="model must not use one parameter in two stages"):
        pipeline_stage(model, 0, 2)
    assert len(pipeline_stage(model, 0, 1)) == 6


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: parts(nn.Linear(1, 1)), TypeError, "model must be a transformer"),
        (lambda: parts([nn.ReLU(), 2]), TypeError, "model must be a transformer"),
        (lambda: parts(nn.Sequential()), TypeError, "model must be a transformer"),
        (lambda: balanced_cuts([1, 1], 3), ValueError, "costs must have at least 3 parts"),
        (lambda: balanced_cuts([1, -1], 1), ValueError, "costs must be a finite number of at"),
        (lambda: balanced_cuts([1, float("nan")], 1), ValueError, "costs must be a finite"),
        (lambda: balanced_cuts([1, float("inf")], 1), ValueError, "costs must be a finite"),
        (
            lambda: forward_costs(net(), torch.randn(1, 3)),
            ValueError,
            "Embedding 0 of model failed",
        ),
        (lambda: balanced_cuts([1], 0), ValueError, "stages must be"),
        (
            lambda: pipeline_stage(net(), 2, 2),
            ValueError,
            "rank must be a whole number from 0 to 1, got 2",
        ),
        (lambda: pipeline_stage(net(), 0, 2, [1]), ValueError, "costs must be 6"),
    ],
)
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_bad_batches_and_schedules_are_refused():
    def attempts():
        squares, words = supervised(F.mse_loss), []
        with init():
            for microbatches, kind in ((2, "gpipe"), (0, "GPipe"), (1, "1F1B")):
                try:
                    Pipeline(nn.Linear(1, 1), squares, microbatches, kind)
                except ValueError as error:
                    words.append(str(error))
            for stage, task in ((lambda x: x, squares), (nn.Linear(1, 1), F.mse_loss)):
                try:
                    Pipeline(stage, task, 2)
                except TypeError as error:
                    words.append(str(error))
            pipeline = Pipeline(nn.Linear(1, 1), squares, 2)
            pipeline.step((torch.ones(4, 1), torch.ones(4, 1)))
            for inputs, targets in ((3, 3), (4, 2), (6, 6)):
                try:
                    pipeline.step((torch.ones(inputs, 1), torch.ones(targets, 1)))
                except ValueError as error:
                    words.append(str(error))
            nobody = torch.zeros(4, 1), torch.full((4,), IGNORE)
            try:
                Pipeline(nn.Linear(1, 1), classify(), 2).step(nobody)
            except ValueError as error:
                words.append(str(error))
            return words

    expected = (
        "kind must be",
        "microbatches must be",
        "microbatches must be at least 2",
        "stage must be of type Module",
        "task must be of type Task",
        "inputs and targets must be equally many, a multiple of 2",
        "inputs and targets must be equally many, a multiple of 2",
        "inputs must have the shape of the first step, (4, 1), got (6, 1)",
        "no target counts in the batch",
    )
    for words in launch(attempts, 2, deadline=60):
        for found, start in zip(words, expected, strict=True):
            assert found.startswith(start)
