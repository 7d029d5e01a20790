"""The benchmarks measure what they say: tested where no clock of a real machine is needed.

The libraries that labkit is measured against are not installed where these tests run.
"""

from __future__ import annotations

import sys
import types
from functools import partial

import pytest
import torch
from scipy.stats import binomtest
from tests_support import tiny_recipe
from torch.nn import functional as F

from benchmarks import __main__ as command
from benchmarks import import_cost, loop_overhead, relay, rows, verdict_calibration
from benchmarks.arms.work import Clocked, optimizer
from benchmarks.loop_overhead import BARE
from benchmarks.rows import Row
from labkit.compare import scoreboard
from labkit.measure.statistics import Estimate

OURS = {name: loop_overhead.ARMS[name] for name in (BARE, "bare loop again", "labkit")}


class FakeClock:
    """Seconds that pass only when somebody looks or sleeps."""

    def __init__(self, tick: float = 0.0) -> None:
        self.now, self.tick = 0.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


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


# --- verdict calibration


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
    assert [row.estimate.n for row in found] == [3, 3, 3, 3, 6]


def test_calls_are_counted_as_the_verdicts_make_them():
    def verdict(low, high):
        estimate = Estimate((low + high) / 2, low, high, 50)
        return verdict_calibration.Verdict("other", "plain", "step time", estimate)

    outcome = verdict_calibration.Outcome(
        [verdict(0.9, 0.95), verdict(0.99, 1.01), verdict(1.1, 1.2), verdict(0.5, 2.0)], [1.0] * 4
    )
    assert outcome.calls() == {"worse": 1, "can't tell": 2, "better": 1}
    assert outcome.share("can't tell").value == 50
    assert outcome.share("worse").value == 25


@pytest.mark.parametrize(("hits", "n"), [(0, 100), (95, 100), (100, 100), (1, 1), (3, 7)])
def test_wilson_agrees_with_scipy(hits, n):
    interval = binomtest(hits, n).proportion_ci(method="wilson")
    estimate = verdict_calibration.wilson(hits, n)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
        (100 * hits / n, 100 * interval.low, 100 * interval.high)
    )


@pytest.mark.parametrize(("hits", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(hits, n):
    with pytest.raises(ValueError, match=f"got {hits} of {n}"):
        verdict_calibration.wilson(hits, n)


# --- import cost


def test_imports_alternate_and_their_difference_is_paired():
    order = []

    def timed(names):
        order.append(names)
        torch_seconds = float(len(order))  # a machine that gets slower and slower
        return [torch_seconds] if names == import_cost.ALONE else [torch_seconds, 0.05]

    alone, both = import_cost.measure(2, timed)
    assert order == [import_cost.BOTH] * 2 + [import_cost.ALONE] * 2 + [import_cost.BOTH]
    torch_row, labkit_row, difference = import_cost.rows(alone, both)
    assert torch_row.estimate.value == pytest.approx((3 + 4) / 2)
    assert labkit_row.estimate.value == pytest.approx(0.05)
    assert difference.estimate.value == pytest.approx(((2.05 - 3) + (5.05 - 4)) / 2)
    assert difference.estimate.n == 2


def test_time_imports_times_each_name_in_a_process_of_its_own():
    seconds = import_cost.time_imports(("json", "labkit.table"))
    assert len(seconds) == 2
    assert all(value > 0 for value in seconds)


# --- the table and the command


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.00"),
        (0.00123, "0.0012"),
        (0.0123, "0.01"),
        (1.004, "1.00"),
        (9.996, "10.0"),
        (-45.67, "-45.7"),
        (99.94, "99.9"),
        (99.96, "100"),
        (1234.5, "1234"),
    ],
)
def test_numbers_are_short(value, text):
    assert rows.number(value) == text


def test_the_table_shows_value_interval_n_and_note():
    found = [
        Row("labkit", Estimate(4.2, 3.1, 5.3, 80), "%", "the leanest"),
        Row("race", Estimate(1.0, -float("inf"), float("inf"), 2), "s"),
    ]
    lines = str(rows.table({"loop": found}, note="a machine")).splitlines()
    assert " ".join(lines[0].split()) == "benchmark what value 95 % interval n note"
    assert " ".join(lines[2].split()) == "loop labkit 4.20 % 3.10 to 5.30 80 the leanest"
    assert " ".join(lines[3].split()) == "loop race 1.00 s too few 2"
    assert lines[-1] == "a machine"


@pytest.fixture
def fakes(monkeypatch, tmp_path):
    """Replace all benchmarks by quick ones, the second of which fails; results go to tmp_path."""
    monkeypatch.setenv("LABKIT_RESULTS", str(tmp_path))
    asked = []

    def good(name, quick):
        asked.append((name, quick))
        return [
            Row(f"{name} figure", Estimate(1.0, 0.5, 1.5, 9), "ms"),
            rows.not_installed(f"{name} other", "other"),
        ]

    def bad(name, quick):
        raise RuntimeError("planted")

    for number, name in enumerate(command.BENCHMARKS):
        module = types.ModuleType(name)
        module.run = partial(bad if number == 1 else good, name)
        monkeypatch.setitem(sys.modules, f"benchmarks.{name}", module)
    return asked


def test_the_command_goes_on_after_a_failure_and_says_which(fakes, capsys, tmp_path):
    assert command.main([]) == 1
    output, errors = capsys.readouterr()
    survivors = [name for name in command.BENCHMARKS if name != command.BENCHMARKS[1]]
    assert fakes == [(name, False) for name in survivors]
    assert all(f"{name} figure" in output for name in survivors)
    assert f"failed: {command.BENCHMARKS[1]}" in errors
    assert "planted" in errors
    assert "1 thread ·" in output  # the machine's facts
    noted = scoreboard.read([tmp_path / "scoreboard.jsonl"])
    assert sorted(entry["what"] for entry in noted) == sorted(f"benchmark {n}" for n in survivors)
    assert all(list(entry["figures"]) == [f"{entry['what'][10:]} figure"] for entry in noted)


def test_the_command_runs_what_is_named_and_passes_quick_on(fakes, tmp_path):
    name = command.BENCHMARKS[2]
    assert command.main([name, "--quick"]) == 0
    assert fakes == [(name, True)]
    (entry,) = scoreboard.read([tmp_path / "scoreboard.jsonl"])
    assert entry["profile"] == "quick"


def test_an_unknown_name_is_refused_before_anything_runs(fakes, capsys):
    with pytest.raises(SystemExit):
        command.main([command.BENCHMARKS[0], "speed"])
    assert "no benchmark 'speed'; there are import_cost" in capsys.readouterr().err
    assert fakes == []
