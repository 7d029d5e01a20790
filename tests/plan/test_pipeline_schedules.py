"""The arithmetic of pipeline schedules against its laws."""

from __future__ import annotations

import itertools

import pytest

from labkit.plan.pipeline_schedules import bubble, idle, in_flight, order, pipeline_schedule

SIZES = [(p, m) for p in (1, 2, 3, 4, 8) for m in (1, 2, 3, 4, 7, 16)]


@pytest.mark.parametrize("kind", ["GPipe", "1F1B"])
@pytest.mark.parametrize(("stages", "microbatches"), SIZES)
def test_the_simulation_idles_as_the_formula_says(kind, stages, microbatches):
    for backward in (1, 2, 3.5):
        blocks = pipeline_schedule(kind, stages, microbatches, backward=backward)
        assert idle(blocks) == pytest.approx(bubble(stages, microbatches))
        assert max(b.end for b in blocks) == pytest.approx(
            (stages + microbatches - 1) * (1 + backward)
        )


@pytest.mark.parametrize("kind", ["GPipe", "1F1B"])
@pytest.mark.parametrize(("stages", "microbatches"), SIZES)
def test_the_simulation_could_be_run(kind, stages, microbatches):
    blocks = pipeline_schedule(kind, stages, microbatches)
    ends = {(b.rank, b.kind, b.microbatch): b.end for b in blocks}
    assert len(ends) == len(blocks) == 2 * stages * microbatches
    assert blocks == sorted(blocks, key=lambda block: block.start)
    for rank in range(stages):
        mine = [b for b in blocks if b.rank == rank]
        assert [(b.kind, b.microbatch) for b in mine] == order(kind, stages, microbatches, rank)
        assert all(a.end <= b.start for a, b in itertools.pairwise(mine))
    for b in blocks:
        if b.kind == "F" and b.rank > 0:
            assert b.start >= ends[b.rank - 1, "F", b.microbatch]
        if b.kind == "B":
            assert b.start >= ends[b.rank, "F", b.microbatch]
            if b.rank < stages - 1:
                assert b.start >= ends[b.rank + 1, "B", b.microbatch]


@pytest.mark.parametrize("kind", ["GPipe", "1F1B"])
@pytest.mark.parametrize(("stages", "microbatches"), SIZES)
def test_microbatches_in_flight(kind, stages, microbatches):
    for rank in range(stages):
        held = most = 0
        for what, _ in order(kind, stages, microbatches, rank):
            held += 1 if what == "F" else -1
            most = max(most, held)
        assert most == in_flight(kind, stages, microbatches, rank)
        assert held == 0


def test_numbers_of_the_papers():
    assert bubble(4, 1) == 3 / 4  # no microbatches: one of four works
    assert bubble(1, 5) == 0
    assert bubble(4, 4 * 4) < 0.16
    assert [in_flight("1F1B", 4, 100, rank) for rank in range(4)] == [4, 3, 2, 1]
    assert in_flight("GPipe", 4, 100, 3) == 100
    assert order("1F1B", 2, 3, 0) == [
        ("F", 0), ("F", 1), ("B", 0), ("F", 2), ("B", 1), ("B", 2)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bubble(0, 1), "stages must be"),
        (lambda: bubble(1, 0), "microbatches must be"),
        (lambda: in_flight("gpipe", 1, 1, 0), "kind must be one of 'GPipe', '1F1B', got 'gpipe'"),
        (lambda: in_flight("GPipe", 2, 1, 2), "rank must be a whole number from 0 to 1, got 2"),
        (lambda: order("1F1B", 2, 1, -1), "rank must be a whole number from 0 to 1, got -1"),
        (lambda: pipeline_schedule("GPipe", 2, 0), "microbatches must be"),
        (
            lambda: pipeline_schedule("GPipe", 2, 2, forward=0),
            "forward must be a positive",
        ),
        (
            lambda: pipeline_schedule("GPipe", 2, 2, backward=-2.0),
            "backward must be a positive",
        ),
        (lambda: idle([]), "blocks must hold at least one"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
