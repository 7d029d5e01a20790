"""The loops are compared fairly: the same work, in turn, and only the loop is on the clock.

The libraries that labkit is measured against are not installed where these tests run.
"""

from __future__ import annotations

import sys
from functools import partial

import pytest
import torch
from support.fake_clock import FakeClock
from torch.nn import functional as F

from benchmarks import loop_overhead, relay, rows
from benchmarks.arms.work import Clocked, optimizer
from benchmarks.loop_overhead import BARE

OURS = {name: loop_overhead.ARMS[name] for name in (BARE, "bare loop again", "labkit")}


def batches(count):
    return [(torch.full((1,), float(number)), torch.zeros(1)) for number in range(count)]


# --- the clock in the data


def test_clocked_batches_time_the_loop_and_not_the_waiting():
    clock = FakeClock()
    data = Clocked(batches(4), hand_over=partial(clock.sleep, 100), clock=clock)
    for number, (inputs, _) in enumerate(data, start=1):
        assert inputs.item() == number - 1
        clock.sleep(number)
    assert data.seconds == [1, 2, 3, 4]
    assert len(data) == 4


def test_clocked_batches_hand_over_before_every_leg():
    handed = []
    data = Clocked(batches(6), leg=3, hand_over=lambda: handed.append(len(data.seconds)))
    list(data)
    assert handed == [0, 3]


def test_clocked_batches_start_anew_with_each_pass():
    data = Clocked(batches(3))
    list(data)
    list(data)
    assert len(data.seconds) == 3


def test_legs_leave_out_the_warmup_and_the_last_one():
    data = Clocked(batches(8), leg=2)
    data.seconds = [9, 9, 1, 3, 5, 7, 99]  # a loop that asks for nothing after its last step
    assert data.legs(warmup=1) == [2, 6]


# --- the relay


def test_a_relay_interleaves_its_runners_and_lets_the_rest_finish():
    seen = []

    def runner(name, steps, hand_over):
        for _ in range(steps):
            hand_over()
            seen.append(name)

    relay.relay({"a": partial(runner, "a", 2), "b": partial(runner, "b", 4)})
    assert seen == ["a", "b", "a", "b", "b", "b"]


def test_a_relay_passes_an_error_on_and_names_the_runner():
    finished = []

    def good(hand_over):
        hand_over()
        hand_over()
        finished.append(True)

    def bad(hand_over):
        hand_over()
        raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted") as caught:
        relay.relay({"good": good, "bad": bad})
    assert finished == [True]
    assert caught.value.__notes__ == ["raised by 'bad'"]


def test_a_relay_of_nobody_is_over_at_once():
    relay.relay({})


# --- loop overhead


WORKLOADS = {
    "mlp": partial(loop_overhead.mlp, 40),
    "convnet": partial(loop_overhead.convnet, 8, batch_size=8, width=2),
}


@pytest.mark.parametrize("make", WORKLOADS.values(), ids=WORKLOADS)
def test_labkit_and_the_bare_loop_end_with_the_same_weights(make, tmp_path):
    workload = make()
    start = {name: tensor.clone() for name, tensor in workload.model.state_dict().items()}
    arms, missing = loop_overhead.load_arms(OURS)
    assert missing == {}
    seconds = loop_overhead.measure(workload, arms, 2, tmp_path)
    legs = len(workload.batches) // workload.leg - workload.warmup - 1
    assert list(seconds) == list(OURS)
    assert all([len(turn) for turn in turns] == [legs, legs] for turns in seconds.values())
    torch.testing.assert_close(workload.model.state_dict(), start)  # each turn starts from it
    assert list(tmp_path.iterdir()) == []


def lazy(model, data, folder):
    """Skip the last step."""
    sgd = optimizer(model.parameters())
    for number, (inputs, labels) in enumerate(data, start=1):
        sgd.zero_grad()
        F.cross_entropy(model(inputs), labels).backward()
        if number < len(data):
            sgd.step()


def test_an_arm_that_does_less_work_is_found_and_named(tmp_path):
    arms, _ = loop_overhead.load_arms({BARE: OURS[BARE]})
    with pytest.raises(AssertionError, match="'lazy' did other work than the bare loop"):
        loop_overhead.take_turn(loop_overhead.mlp(30), {**arms, "lazy": lazy}, tmp_path)


def test_a_library_that_is_not_installed_becomes_a_row(monkeypatch):
    monkeypatch.setitem(sys.modules, "skorch", None)
    monkeypatch.delitem(sys.modules, "benchmarks.arms.with_skorch", raising=False)
    arms, missing = loop_overhead.load_arms({"skorch": loop_overhead.ARMS["skorch"]})
    assert (arms, missing) == ({}, {"skorch": "skorch"})
    row = rows.not_installed("MLP: skorch", "skorch")
    assert row.estimate is None
    assert "skorch is not installed" in str(rows.table({"loop_overhead": [row]}))


def test_an_arm_that_lacks_something_else_fails(monkeypatch):
    monkeypatch.setitem(sys.modules, "benchmarks.arms.work", None)
    monkeypatch.delitem(sys.modules, "benchmarks.arms.with_labkit", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"benchmarks\.arms\.work"):
        loop_overhead.load_arms({"labkit": ("with_labkit", "labkit")})


def test_cost_is_how_many_per_cent_longer_a_step_takes():
    bare = [[1.0, 2.0, 4.0]] * 7  # a machine whose speed changes within a turn
    estimate = loop_overhead.cost(bare, [[1.25 * seconds for seconds in turn] for turn in bare])
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((25, 25, 25))
    assert estimate.n == 7


def test_a_turn_is_one_observation_however_many_legs_it_has():
    other = [[ratio] * 100 for ratio in (1.0, 1.1, 1.2, 1.3, 1.4, 1.5)]
    estimate = loop_overhead.cost([[1.0] * 100] * 6, other)
    assert estimate.n == 6
    assert estimate.low < 20 < 30 < estimate.high


def test_the_bare_loop_is_a_row_in_milliseconds_and_the_others_are_costs():
    workload = loop_overhead.Workload("MLP", torch.nn.Linear(1, 1), [], leg=1, warmup=0)
    turns = {BARE: [[2e-3, 2e-3]] * 6, "labkit": [[3e-3, 3e-3]] * 6}
    found = loop_overhead.rows(workload, turns)
    assert [(row.name, row.unit) for row in found] == [
        ("MLP: bare loop", "ms"),
        ("MLP: labkit", "%"),
    ]
    assert [row.estimate.value for row in found] == pytest.approx([2, 50])


def test_quiet_silences_inside_and_only_there(capsys):
    with loop_overhead.quiet():
        print("a tip")
        print("a hint", file=sys.stderr)
    print("a result")
    assert capsys.readouterr() == ("a result\n", "")
