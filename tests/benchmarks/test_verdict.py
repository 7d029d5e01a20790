"""The calibration of the verdict plants what it says, and counts the verdicts as they are made."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binomtest
from support.common import tiny_recipe
from support.fake_clock import FakeClock

from benchmarks import verdict_calibration
from labkit.compare import STEP_TIME
from labkit.measure.statistics import Estimate


def test_a_planted_wait_is_the_share_of_the_other_arms_latest_step():
    clock = FakeClock(tick=0.001)
    plant = verdict_calibration.Plant(0.1, clock)
    for step in (2.0, 0.5):
        plant.other_seconds, before = step, clock.now
        plant.wait()
        assert clock.now - before == pytest.approx(0.1 * step, abs=0.003)


def test_a_delayed_model_waits_in_training_only_and_computes_the_same():
    clock = FakeClock(tick=0.001)
    inner = torch.nn.Linear(2, 2)
    model = verdict_calibration.Delayed(
        inner, verdict_calibration.Plant(0.1, clock, other_seconds=1.0)
    )
    inputs = torch.ones(1, 2)
    assert torch.equal(model.train()(inputs), inner(inputs))
    waited = clock.now
    assert waited == pytest.approx(0.1, abs=0.003)
    model.eval()(inputs)
    assert clock.now == waited


def test_a_planted_race_slows_one_arm_and_changes_nothing_that_it_learns():
    plant = verdict_calibration.Plant(5.0)  # large, so that a busy machine cannot hide it
    outcome = verdict_calibration.Outcome()
    race = verdict_calibration.one_race(tiny_recipe(steps=12), plant, outcome)
    plain, other = (race.records[name][0] for name in ("plain", "other"))
    assert plain.losses == other.losses
    assert plant.other_seconds == plain.seconds[-1]
    assert outcome.calls() == {"worse": 1}
    assert len(outcome.seconds) == 1


def test_each_kind_gets_as_many_races_as_asked_for():
    same, planted = verdict_calibration.hold(tiny_recipe(steps=9), races=3)
    assert len(same.verdicts) == len(planted.verdicts) == 3
    found = verdict_calibration.rows(same, planted, rounds=9)
    assert [row.estimate.n for row in found] == [3, 3, 3, 3, 3, 6]


def test_calls_are_counted_as_the_verdicts_make_them():
    def verdict(low, high):
        estimate = Estimate((low + high) / 2, low, high, 50)
        return verdict_calibration.Verdict("other", "plain", STEP_TIME, estimate)

    ends = [(0.9, 0.95), (0.99, 1.01), (1.1, 1.2), (0.5, 2.0)]
    outcome = verdict_calibration.Outcome([verdict(*each) for each in ends], [1.0] * 4)
    assert set(outcome.calls().values()) == {1} and len(outcome.calls()) == 4
    assert outcome.share("can't tell").value == 25
    assert outcome.share("can't tell", "no difference that matters").value == 50
    wilson = binomtest(1, 4).proportion_ci(method="wilson")
    assert outcome.share("worse").high == pytest.approx(100 * wilson.high)
