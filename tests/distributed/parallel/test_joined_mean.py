"""Ranks whose parts of a batch weigh differently: the mean is that of the joined batch."""

import copy

import pytest
import torch
from support.parallel import one_step, seeded
from torch import nn
from torch.nn import functional as F

from labkit import train
from labkit.distributed import init, launch
from labkit.distributed.parallel.data import (
    average_coalesced,
    average_gradients,
    data_parallel,
    joined_mean,
)
from labkit.training import IGNORE, classify, next_token


def losses_of(sizes):
    with init() as world:
        outputs, labels = (whole.split(sizes)[world.rank] for whole in scores(sizes))
        return one_step(data_parallel(same_again()), [(outputs, labels)])


def same_again():
    """A model that answers with its inputs."""
    model = nn.Linear(10, 10, bias=False)
    nn.init.eye_(model.weight)
    return model


def scores(sizes):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(sum(sizes), 10, generator=generator), torch.arange(sum(sizes)) % 10


@pytest.mark.parametrize("sizes", [[4, 4], [5, 2], [3, 0]])
def test_the_mean_of_the_ranks_losses_is_that_of_the_joined_batch(sizes):
    losses = launch(losses_of, sizes=sizes, deadline=60)
    assert sum(losses) / 2 == pytest.approx(F.cross_entropy(*scores(sizes)).item(), rel=1e-6)


def nothing_at_all():
    with init():
        nobody = torch.zeros(0, 10), torch.zeros(0, dtype=torch.long)
        return one_step(data_parallel(same_again()), [nobody])


def text_with_padding():
    """Two texts, with 2 and 12 targets that count."""
    tokens = torch.randint(7, (2, 12), generator=torch.Generator().manual_seed(3))
    targets = tokens.roll(-1, 1)
    targets[0, 2:] = IGNORE
    return tokens, targets


def reader():
    return seeded(lambda: nn.Sequential(nn.Embedding(7, 8), nn.Linear(8, 7))).double()


def padded(accumulate):
    """Weights after a step on one text a rank, which is cut in two for `accumulate` = 2."""
    with init() as world:
        model = data_parallel(reader(), accumulate=accumulate)
        tokens, targets = (part[world.rank : world.rank + 1] for part in text_with_padding())
        cuts = [slice(0, 5), slice(5, 12)] if accumulate == 2 else [slice(0, 12)]
        batches = [(tokens[:, cut], targets[:, cut]) for cut in cuts]
        task = joined_mean(next_token())
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        (step,) = train(model, batches, optimizer, task=task, accumulate=accumulate)
        return step.loss, list(model.parameters())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_ranks_weigh_by_the_targets_that_count(accumulate):
    model = reader()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    (step,) = train(model, [text_with_padding()], optimizer, task=next_token())
    results = launch(padded, accumulate=accumulate, deadline=60)
    assert sum(loss for loss, _ in results) / 2 == pytest.approx(step.loss, rel=1e-12)
    for _, parameters in results:
        torch.testing.assert_close(parameters, list(model.parameters()), rtol=1e-10, atol=1e-12)


WEIGHED = classify(class_weights=(0.1, 5.0, 1.0))


def by_class():
    """Sorted by class, so that one half of the batch weighs less than a tenth of the other."""
    inputs = torch.randn(12, 6, generator=torch.Generator().manual_seed(4)).double()
    return inputs, torch.tensor([0] * 6 + [2] * 4 + [1] * 2)


def weighed(start):
    """Gradients of this rank's half of the batch, averaged in three ways."""
    with init() as world:
        batch = tuple(part.chunk(world.size)[world.rank] for part in by_class())
        found = {}
        for average in (average_gradients, average_coalesced):
            model = copy.deepcopy(start)
            WEIGHED.loss(model, batch).backward()
            average(model, WEIGHED.weight(batch))
            found[average.__name__] = [p.grad for p in model.parameters()]
        wrapped = data_parallel(copy.deepcopy(start))
        still = torch.optim.SGD(wrapped.parameters(), lr=0.0)
        next(iter(train(wrapped, [batch], still, task=joined_mean(WEIGHED))))
        return found | {"joined_mean": [p.grad for p in wrapped.parameters()]}


def test_ranks_weigh_by_their_classes_in_every_way():
    start = seeded(lambda: nn.Linear(6, 3)).double()
    joined = copy.deepcopy(start)
    WEIGHED.loss(joined, by_class()).backward()
    expected = [p.grad for p in joined.parameters()]
    for found in launch(weighed, start=start, deadline=60):
        assert len(found) == 3
        for gradients in found.values():  # the weights of the classes are float32
            torch.testing.assert_close(gradients, expected, rtol=1e-6, atol=1e-8)


def test_a_batch_that_is_empty_on_all_ranks_is_refused():
    with pytest.raises(RuntimeError, match="no target counts on any rank"):
        launch(nothing_at_all, deadline=60)


UNEVEN = [  # batches of each rank, rows in them, batches a step
    ((3, 4), (4, 3), 2),
    ((3, 3), (4, 3), 2),
    ((4, 4), (1, 1), 2),  # one row a batch
    ((5, 5), (3, 1), 3),  # the last step of an epoch is shorter
]


def rows_of(rank, rows, count):
    generator = torch.Generator().manual_seed(rank)
    return [(torch.randn(rows, 3, generator=generator), torch.arange(rows) % 2)] * count


def uneven():
    found = []
    with init() as world:
        for counts, rows, accumulate in UNEVEN:
            model = data_parallel(seeded(lambda: nn.Linear(3, 2)), accumulate=accumulate)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
            batches = rows_of(world.rank, rows[world.rank], counts[world.rank])
            task = joined_mean(classify())
            list(train(model, batches, optimizer, task=task, accumulate=accumulate))
            found.append(model.module.weight.detach())
    return found


def test_uneven_windows_weigh_each_row_alike():
    expected = []
    for counts, rows, accumulate in UNEVEN:
        model = seeded(lambda: nn.Linear(3, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        parts = [rows_of(rank, rows[rank], counts[rank]) for rank in (0, 1)]
        for start in range(0, max(counts), accumulate):
            window = [batch for part in parts for batch in part[start : start + accumulate]]
            inputs, labels = (torch.cat(both) for both in zip(*window, strict=True))
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        expected.append(model.weight.detach())
    for found in launch(uneven, deadline=60):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
