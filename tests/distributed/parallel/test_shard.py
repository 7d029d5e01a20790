"""Each batch dealt out to the ranks: nothing lost, nothing doubled, the same again."""

from __future__ import annotations

import pytest
import torch

from labkit.data import Batches
from labkit.distributed.parallel.data import shard


def numbered(n, batch_size, **settings):
    """Batches whose labels are the numbers of the samples."""
    images = torch.zeros(n, 1, 1, 1, dtype=torch.uint8)
    return Batches(images, torch.arange(n), batch_size, **settings)


def labels(batches):
    return [part.tolist() for _, part in batches]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize(("n", "batch_size"), [(24, 8), (25, 8), (26, 7), (4, 4)])
@pytest.mark.parametrize("shuffle", [True, False])
def test_no_sample_is_lost_or_doubled(n, batch_size, shuffle, size):
    whole = numbered(n, batch_size, shuffle=shuffle)
    parts = [shard(numbered(n, batch_size, shuffle=shuffle), r, size) for r in range(size)]
    assert {len(part) for part in parts} == {len(whole)}
    for _ in range(2):  # epochs
        joined = [
            [x for mine in ranks for x in mine] for ranks in zip(*map(labels, parts), strict=True)
        ]
        assert joined == labels(whole)
        flat = [x for one in joined for x in one]
        assert len(set(flat)) == len(flat) == (n if not shuffle else n // batch_size * batch_size)


def test_an_epoch_is_the_same_again_and_the_next_is_another():
    first, again = (shard(numbered(40, 8, seed=3), 1, 2) for _ in range(2))
    epochs = [labels(first), labels(first)]
    assert epochs == [labels(again), labels(again)]
    assert epochs[0] != epochs[1]
    first.set_epoch(0)
    assert labels(first) == epochs[0]
    assert labels(shard(numbered(40, 8, seed=4), 1, 2)) != epochs[0]


def test_parts_differ_by_one_sample_at_most():
    sizes = [[len(part) for part in labels(shard(numbered(20, 10), r, 3))] for r in range(3)]
    assert sizes == [[4, 4], [3, 3], [3, 3]]
    last = [labels(shard(numbered(9, 4, shuffle=False), r, 4))[-1] for r in range(4)]
    assert last == [[8], [], [], []]


@pytest.mark.parametrize(
    ("rank", "size", "word"),
    [
        (2, 2, "rank must be a whole number from 0 to 1, got 2"),
        (-1, 2, "rank must be"),
        (True, 2, "rank must be"),
        (0, 0, "size must be a whole number of at least 1, got 0"),
        (0, 9, "batch_size 8 gives nothing to some of 9 ranks"),
    ],
)
def test_shards_refuse(rank, size, word):
    with pytest.raises(ValueError, match=word):
        shard(numbered(40, 8), rank, size)
