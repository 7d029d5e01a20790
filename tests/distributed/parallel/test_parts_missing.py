"""Data parallel where something is missing: a gradient, a parameter, a rank, or equal starts."""

from __future__ import annotations

import pytest
import torch
from support.parallel import seeded
from torch import nn

from labkit import models, train
from labkit.distributed import RankError, init, launch
from labkit.distributed.collectives.coalesced import start_alike
from labkit.distributed.collectives.compress import PowerSGD
from labkit.distributed.collectives.network_meter import NetworkMeter
from labkit.distributed.collectives.ring import ring_all_reduce
from labkit.distributed.collectives.shared_memory import shared_memory
from labkit.distributed.parallel.data import average_coalesced, average_gradients, data_parallel
from labkit.distributed.parallel.pipeline import Pipeline
from labkit.distributed.parallel.sharding import Sharded
from labkit.distributed.parallel.tensor import split
from labkit.training import next_token


class Two(nn.Module):
    """Two layers; the second one is used in the first `until` calls, by the ranks below `below`."""

    def __init__(self, until, below=2):
        super().__init__()
        self.a, self.b, self.until, self.below = nn.Linear(3, 2), nn.Linear(3, 2), until, below
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        used = self.calls <= self.until and torch.distributed.get_rank() < self.below
        return self.a(x) + (self.b(x) if used else 0)


def unused(until, accumulate, steps, below=2):
    with init() as world:
        torch.manual_seed(world.rank)
        batches = [(torch.randn(4, 3), torch.zeros(4, dtype=torch.long))] * (steps * accumulate)
        model = data_parallel(Two(until, below), accumulate=accumulate)
        list(
            train(
                model, batches, torch.optim.SGD(model.parameters(), lr=0.1), accumulate=accumulate
            )
        )
        return model.module.a.weight.detach().tolist()


@pytest.mark.parametrize(
    ("until", "accumulate", "steps", "below"),
    [
        (0, 1, 3, 2),  # never used
        (0, 1, 1, 2),  # and only one step, after which torch says nothing
        (2, 1, 3, 2),  # not in the last step
        (3, 2, 2, 2),  # not in the last batch of the last step, with which DDP sends
        (3, 1, 3, 1),  # by one of the ranks only
    ],
)
def test_a_parameter_that_takes_no_part_is_named_with_the_remedy(until, accumulate, steps, below):
    with pytest.raises(RankError) as caught:
        launch(unused, until=until, accumulate=accumulate, steps=steps, below=below, deadline=60)
    first = str(caught.value).splitlines()[0]
    assert "took no part in the loss: b.weight, b.bias;" in first and "average_coalesced" in first


def test_all_that_take_part_are_trained_alike():
    for until, accumulate in ((3, 1), (6, 2)):
        first, second = launch(unused, until=until, accumulate=accumulate, steps=3, deadline=60)
        assert first == second


def sparse_and_mixed():
    """Means of sparse gradients and of several dtypes, from one start; by each naive way."""
    with init() as world:
        found = {}
        for name, average in {
            "one by one": average_gradients,
            "one message": average_coalesced,
        }.items():
            torch.manual_seed(world.rank)
            model = nn.ModuleDict(
                {
                    "table": nn.Embedding(4, 2, sparse=True),
                    "wide": nn.Linear(2, 2, dtype=torch.float64),
                    "narrow": nn.Linear(2, 2, dtype=torch.bfloat16),
                    "norm": nn.BatchNorm1d(2),
                }
            )
            model["norm"].running_mean.fill_(world.rank)
            start = start_alike(model)["wide"].weight.detach().clone()
            model["table"](torch.tensor([world.rank, 3])).sum().backward()
            for layer in ("wide", "narrow"):
                weight = model[layer].weight
                model[layer](torch.full((1, 2), 1.0 + world.rank).to(weight.dtype)).sum().backward()
            average(model, all_reduce=(meter := NetworkMeter()).all_reduce)
            assert meter.take()[0] > 8 * 2 * 4  # indices and float32 rows of the table
            grads = {n: model[n].weight.grad for n in ("table", "wide", "narrow")}
            table = grads["table"].to_dense().tolist()
            found[name] = table, grads["wide"].tolist(), grads["narrow"].tolist(), start.tolist()
            assert model["norm"].running_mean.tolist() == [0.0, 0.0]
        return found


def test_sparse_and_mixed_gradients_from_the_first_rank_s_weights():
    first, second = launch(sparse_and_mixed, 2, deadline=60)
    assert first == second
    for table, wide, narrow, _ in first.values():
        assert table == [[0.5, 0.5], [0.5, 0.5], [0.0, 0.0], [1.0, 1.0]]
        assert wide == narrow == [[1.5, 1.5]] * 2


def no_parameters():
    """What each way says to a model without a parameter that is trained."""
    with init():
        words = []
        for model in (nn.ReLU(), nn.Linear(1, 1).requires_grad_(False)):
            for call in (data_parallel, average_gradients, lambda m: average_coalesced(m, 3.0)):
                try:
                    call(model)
                except ValueError as error:
                    words.append(str(error))
            try:
                Sharded(model, 1)
            except ValueError as error:
                words.append(str(error))
        for weight in (float("nan"), -1.0):
            try:
                average_gradients(nn.Linear(1, 1), weight)
            except ValueError as error:
                words.append(str(error))
        return words


def test_a_model_without_parameters_is_refused():
    for words in launch(no_parameters, 2, deadline=60):
        nothing = ["model must have a parameter that is trained"] * 3 + ["groups must hold"]
        expected = nothing * 2 + ["weight must be a finite number of at least 0, got"] * 2
        assert len(words) == len(expected)
        assert all(map(str.startswith, words, expected))


NET = seeded(lambda: models.mlp(4, 4, 4))


@pytest.mark.parametrize(
    "call",
    [
        lambda: data_parallel(NET),
        lambda: average_gradients(NET),
        lambda: average_coalesced(NET, 2),
        lambda: ring_all_reduce(torch.zeros(3)),
        lambda: shared_memory(3),
        lambda: Sharded(NET, 1),
        lambda: split(nn.Sequential(nn.Linear(2, 2)), rows=["0"]),
        lambda: Pipeline(NET, next_token(), 2),
        lambda: start_alike(NET),
        lambda: PowerSGD().average([torch.zeros(3)], [torch.zeros(3)]),
        lambda: NetworkMeter().all_reduce(torch.zeros(3)),
    ],
)
def test_outside_of_init_the_remedy_is_named(call):
    with pytest.raises(ValueError, match="call it inside of `with init"):
        call()
