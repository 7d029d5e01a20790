"""The ways of data parallel are compared with the ceiling, turn by turn, on real ranks."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from benchmarks import data_parallel
from benchmarks.data_parallel import CEILING, CONTROLS, WAYS, rows
from labkit import models
from labkit.distributed import init, launch


def turns(ratios: list[float]) -> list[dict[str, list[float]]]:
    """Turns of three rounds in which "slow" takes ratio times as long as the ceiling."""
    machine = (1.0, 7.0, 2.0)  # whose speed changes within a turn
    return [
        {
            CEILING: list(machine),
            "slow": [ratio * seconds for seconds in machine],
            "meeting": list(machine),
        }
        for ratio in ratios
    ]


def test_a_way_that_takes_twice_as_long_reaches_half_of_the_ceiling():
    slow, control = rows(turns([2.0] * 6))
    assert (slow.name, slow.unit, slow.note) == ("slow", "of the ceiling", "")
    assert (slow.estimate.value, slow.estimate.low, slow.estimate.high) == (0.5, 0.5, 0.5)
    assert (control.name, control.estimate.value, control.note) == ("meeting", 1.0, "control")


def test_a_turn_is_one_observation_however_many_rounds_it_has():
    slow, _ = rows(turns([1.0, 1.25, 1.25, 2.0, 2.0, 2.5, 4.0]))
    assert slow.estimate.n == 7
    assert slow.estimate.low < slow.estimate.value == 0.5 < slow.estimate.high


@pytest.mark.parametrize("way", [CEILING, "slow"])
def test_one_round_that_was_disturbed_does_not_move_a_turn(way):
    disturbed = turns([2.0] * 6)
    for turn in disturbed:
        turn[way][1] *= 50
    slow, _ = rows(disturbed)
    assert slow.estimate.value == 0.5


def test_turns_that_lack_a_round_are_refused():
    uneven = turns([2.0] * 6)
    uneven[3]["slow"].pop()
    with pytest.raises(ValueError, match="shorter"):
        rows(uneven)


def test_the_controls_do_not_mix_the_gradients_of_the_ranks():
    def gradients() -> dict[str, float]:
        with init() as world:
            found = {}
            for name in CONTROLS:
                weight = torch.nn.Linear(1, 1, bias=False)
                weight.weight.grad = torch.full((1, 1), 10.0**world.rank)
                WAYS[name].after(weight)
                found[name] = weight.weight.grad.item()
            return found

    # "packing" still takes each rank's share of the mean, half of it
    kept = {"the ceiling again": 1.0, "packing": 0.5, "meeting": 1.0}
    first, second = launch(gradients, deadline=60)
    assert first == kept
    assert second == {name: 10 * share for name, share in kept.items()}


def test_a_quick_run_gives_a_figure_for_each_way_but_the_ceiling(monkeypatch):
    smaller = partial(launch, make=models.mlp, shape=(8, 64), deadline=60)
    monkeypatch.setattr(data_parallel, "launch", smaller)
    found = data_parallel.run(quick=True)
    assert [row.name for row in found] == [name for name in WAYS if name != CEILING]
    assert all(row.estimate.n == 2 and row.estimate.value > 0 for row in found)
    assert {row.name for row in found if row.note} == set(CONTROLS)
