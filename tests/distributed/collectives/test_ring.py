"""All-reduce by hand against torch's, on real processes, and its simulation against laws."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from labkit.distributed import init, launch
from labkit.distributed.collectives.ring import chunk_sent, ring_all_reduce, ring_steps
from labkit.plan.messages import ring_bytes

CASES = [  # shape, dtype: some are smaller than the number of ranks, some do not divide
    ((12,), torch.float32),
    ((7, 3), torch.float64),
    ((1,), torch.float32),
    ((), torch.float32),
    ((0,), torch.float32),
    ((2, 3, 5), torch.float16),
    ((101,), torch.bfloat16),
]


def by_both():
    """On each rank: (ours, torch's, the same bits on all ranks) for each case."""
    with init() as world:
        generator = torch.Generator().manual_seed(world.rank)
        results = []
        for shape, dtype in CASES:
            mine = torch.randn(shape, generator=generator).to(dtype)
            theirs = mine.double()
            dist.all_reduce(theirs)
            same = ring_all_reduce(mine) is mine
            everyones = [torch.empty_like(mine) for _ in range(world.size)]
            dist.all_gather(everyones, mine)
            same &= all(torch.equal(mine, other) for other in everyones)
            results.append((mine, theirs, same))
        return results


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_it_equals_all_reduce(ranks):
    for results in launch(by_both, ranks, deadline=60):
        for (mine, theirs, same), (shape, dtype) in zip(results, CASES, strict=True):
            assert mine.shape == shape and mine.dtype == dtype and same
            # each of the ranks - 1 additions rounds once
            bound = ranks * torch.finfo(dtype).eps * 4
            torch.testing.assert_close(mine.double(), theirs, rtol=bound, atol=bound)


def test_memory_that_is_not_contiguous():
    def of_a_transposed_view():
        with init() as world:
            whole = torch.full((3, 5), float(world.rank + 1))
            whole[1, 2] = 10
            ring_all_reduce(whole.t()[1:])
            return whole

    for whole in launch(of_a_transposed_view, 2, deadline=60):
        expected = torch.full((3, 5), 3.0)
        expected[1, 2] = 20
        assert torch.equal(whole[:, 1:], expected[:, 1:])
        assert set(whole[:, 0].tolist()) <= {1.0, 2.0}  # what was not in the view is untouched


def test_a_rank_sends_as_many_bytes_as_the_formula_says():
    def count():
        sent = 0
        original = dist.batch_isend_irecv

        def counting(work):
            nonlocal sent
            sent += sum(p.tensor.nbytes for p in work if p.op is dist.isend)
            return original(work)

        dist.batch_isend_irecv = counting
        with init():
            ring_all_reduce(torch.ones(120))
        return sent

    assert launch(count, 3, deadline=60) == [ring_bytes(480, 3)] * 3 == [640] * 3


def test_only_floating_point():
    with pytest.raises(TypeError, match="tensor must hold floating-point"):
        ring_all_reduce(torch.arange(3))


@pytest.mark.parametrize("ranks", range(1, 9))
def test_simulation(ranks):
    states = ring_steps(ranks)
    everyone = frozenset(range(ranks))
    assert len(states) == 1 + 2 * (ranks - 1)
    assert states[0].phase == "start" and states[0].sent == ()
    assert all(chunk == everyone for held in states[-1].held for chunk in held)
    for state in states[1:]:
        assert sorted(state.sent) == list(range(ranks))  # no two links carry the same chunk
    if ranks > 1:
        scattered = states[ranks - 1]
        assert scattered.phase == "reduce-scatter" and states[ranks].phase == "all-gather"
        for held in scattered.held:
            assert sum(chunk == everyone for chunk in held) == 1  # each owns one finished chunk
        owned = [held.index(everyone) for held in scattered.held]
        assert list(states[ranks].sent) == owned  # and sends it next


def test_no_share_is_added_twice():
    for before, after in zip(ring_steps(5)[:4], ring_steps(5)[1:5], strict=True):
        for rank in range(5):
            chunk = after.sent[rank - 1]
            assert not before.held[rank][chunk] & before.held[rank - 1][chunk]


def test_bytes():
    assert ring_bytes(100, 1) == 0
    assert ring_bytes(100, 2) == 100
    assert ring_bytes(100, 1_000_000) == pytest.approx(200, rel=1e-5)


@pytest.mark.parametrize("function", [ring_steps, lambda ranks: ring_bytes(1, ranks)])
@pytest.mark.parametrize("wrong", [0, -1, True])
def test_number_of_ranks(function, wrong):
    with pytest.raises(ValueError, match=r"ranks must be a whole number of at least 1, got"):
        function(wrong)


def test_chunks_follow_each_other():
    assert [chunk_sent(0, step, 4) for step in range(6)] == [0, 3, 2, 1, 0, 3]
