"""What a race measures and says: pairs of its evaluations, memory, verdicts, the table."""

import random
from functools import partial

import pytest
import torch
from support.common import tiny_data, tiny_recipe
from support.racing import Dropping, Losses, recipe
from torch import nn

from labkit.compare import Race
from labkit.compare.intervals import matched_difference, scaled
from labkit.compare.record import WARMUP_ROUNDS, Record
from labkit.training import Recipe
from labkit.training.task import classify


def test_arms_of_different_metrics_are_refused() -> None:
    with pytest.raises(ValueError, match="the same metric to be compared, got a: accuracy, b: los"):
        Race({"a": recipe(), "b": recipe(task=Losses())})
    Race({"a": recipe(), "b": recipe(task=classify(label_smoothing=0.1))})


def test_arms_that_are_tested_on_other_examples_are_refused() -> None:
    small = tiny_data(40)
    race = Race({"a": recipe(steps=4), "b": recipe(data=small, steps=4)}, evaluations=1)
    with pytest.raises(ValueError, match=r"tested on the same examples, got \{'a': 80, 'b': 40\}"):
        list(race)


def test_a_race_of_one_seed_compares_answers_image_by_image() -> None:
    race = Race({"a": recipe(), "b": recipe(batch_size=16)}, seeds=1, evaluations=2)
    list(race)
    a, b = (race.records[name][0].scores for name in "ab")
    assert a is not None and b is not None and len(a) == 80
    only_b, only_a = int(((b == 1) & (a == 0)).sum()), int(((a == 1) & (b == 0)).sum())
    found = race.verdict("b", on="accuracy").estimate
    assert found == scaled(matched_difference(only_b, only_a, 80), 100)
    assert race.records["a"][0].evaluations[-1][2] == pytest.approx(float(a.double().mean()))


def test_a_race_on_losses_is_compared_in_nats_and_reaches_its_target_from_above() -> None:
    arms = {name: recipe(task=Losses(), batch_size=size) for name, size in (("a", 8), ("b", 16))}
    race = Race(arms, seeds=2, evaluations=5, target=2.3)
    list(race)
    verdict = race.verdict("b", on="loss")
    means = [[r.evaluations[-1][2] for r in race.records[name]] for name in "ab"]
    gaps = [b - a for a, b in zip(*means, strict=True)]
    assert verdict.estimate.value == pytest.approx(sum(gaps) / 2)
    assert verdict.quantity.difference_unit == "nats"
    for record in race.records["a"]:
        below = [seconds for _, seconds, loss in record.evaluations if loss <= 2.3]
        assert record.seconds_to(2.3, higher_is_better=False) == (below[0] if below else None)
    assert "s to 2.3 nats" in race.table().headers and "loss, nats" in race.table().headers


def test_the_evaluated_model_is_the_answering_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[nn.Module] = []
    original = Recipe.scores

    def watched(self: Recipe, model: nn.Module) -> torch.Tensor:
        asked.append(model)
        return original(self, model)

    monkeypatch.setattr(Recipe, "scores", watched)
    race = Race({"a": recipe(), "b": recipe()}, seeds=1, evaluations=1)
    list(race)
    assert sorted(map(id, asked)) == sorted(id(t.answering) for t in race.trainings.values())


def test_memory_is_measured_once_in_a_round_that_is_not_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []

    def counted(function: object, device: object) -> int:
        calls.append(race.number)
        function()  # type: ignore[operator]
        return 2**20 * len(calls)

    monkeypatch.setattr("labkit.compare.race.peak_memory", counted)
    race = Race({"a": recipe(), "slow": recipe(batch_size=40)}, seeds=2)  # steps in 2 of 10 rounds
    list(race)
    assert calls == [0, 1] and all(number < WARMUP_ROUNDS for number in calls)
    assert [r.peak_bytes for r in race.records["slow"]] == [2**20, None]
    assert race.verdict("slow", on="peak memory").estimate.value == 2.0
    assert len(race.records["a"][0].seconds) == 10


def test_the_report_trains_nothing() -> None:
    built: list[int] = []

    def counted() -> nn.Module:
        built.append(1)
        return Dropping()

    race = Race({"a": recipe(model=counted), "b": recipe(model=counted)}, seeds=1, target=0.5)
    list(race)
    assert len(built) == 2
    table = race.table()
    race.samples.figures()
    for on in ("step time", "accuracy", "peak memory"):
        race.verdict("b", on=on)
    assert len(built) == 2
    peak = table.headers.index("peak MiB a step")
    assert all(float(row[peak]) > 0 for row in table.rows)


def test_another_arm_is_built_first_with_every_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []

    def named(name: str) -> nn.Module:
        built.append(name)
        return Dropping()

    race = Race({n: recipe(model=partial(named, n), steps=2) for n in "abc"}, seeds=4)
    list(race)
    assert "".join(built) == "abc" + "bca" + "cab" + "abc"
    assert list(race.trainings) == ["a", "b", "c"]


def test_the_number_of_threads_is_set_once_for_all_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.set_num_threads makes oneDNN forget its kernels: the first arm would pay each round."""
    switches: list[int] = []
    original = torch.set_num_threads

    def watched(count: int) -> None:
        switches.append(count)
        original(count)

    monkeypatch.setattr(torch, "set_num_threads", watched)
    before = torch.get_num_threads()
    race = Race({"a": recipe(), "b": recipe()}, seeds=2, thread_count=before + 1)
    list(race)
    assert switches == [before + 1, before]
    switches.clear()
    list(Race({"a": recipe()}, seeds=1, thread_count=before))
    assert switches == []


# -- planted records -----------------------------------------------------------------------------


def planted(ratio: float, seeds: int = 3, rounds: int = 30) -> Race:
    """A race whose records say that arm b is `ratio` times faster, with noise of 5 %."""
    generator = random.Random(1)
    race = Race({"a": tiny_recipe(), "b": tiny_recipe()}, seeds=seeds, target=0.8)
    for arm, scale in (("a", 1.0), ("b", 1 / ratio)):
        for seed in range(seeds):
            record = Record(seed)
            for right, end in ((70, rounds // 2), (85 + seed + 2 * (arm == "b"), rounds)):
                for number in range(len(record.seconds), end):
                    record.rounds.append(number)
                    record.seconds.append(scale * generator.uniform(0.095, 0.105))
                    record.losses.append(1.0)
                record.evaluate(torch.tensor([1.0] * right + [0.0] * (100 - right)))
            race.records[arm].append(record)
    return race


def test_verdicts_of_a_planted_race() -> None:
    race = planted(1.5)
    step = race.verdict("b")
    assert step.call == "better"
    assert step.estimate.low < 1.5 < step.estimate.high
    # Three rounds of warm-up a seed are left out, and up to three that nobody balances.
    assert 3 * 24 <= step.estimate.n <= 3 * 27
    assert race.verdict("a", over="b").call == "worse"
    assert race.verdict("a", over="a").estimate.value == 1.0
    accuracy = race.verdict("b", on="accuracy").estimate
    assert accuracy.value == pytest.approx(2.0) and accuracy.n == 3
    assert race.verdict("b", on="time to target").estimate.value == pytest.approx(1.5, rel=0.05)
    assert len(race.ratios("b")) == step.estimate.n


def test_a_training_that_was_stopped_half_way_is_not_averaged_with_whole_ones() -> None:
    whole, stopped = planted(1.5), planted(1.5)
    for records in stopped.records.values():
        del records[-1].evaluations[1:]  # the last seed stopped after its first evaluation
    for race, seeds in ((whole, 3), (stopped, 2)):
        assert race.verdict("b", on="accuracy").estimate.n == seeds
        assert f"Accuracy: mean of {seeds} seeds" in race.table().note


def test_a_verdict_needs_arms_and_figures() -> None:
    race = planted(1.5)
    with pytest.raises(ValueError, match="there is no arm 'c'; there are a, b"):
        race.verdict("c")
    with pytest.raises(ValueError, match="on must be one of step time, accuracy, .* got 'speed'"):
        race.verdict("b", on="speed")
    empty = Race({"a": tiny_recipe(), "b": tiny_recipe()}, seeds=1)
    assert empty.verdict("b").call == "too few"
    with pytest.raises(ValueError, match="no target"):
        empty.verdict("b", on="time to target")


def test_the_table_names_what_differs() -> None:
    race = Race({"fp32": tiny_recipe(), "bf16": tiny_recipe().but(precision="bf16")}, seeds=1)
    list(race)
    text = str(race.table())
    assert "Arms differ in: precision." in text
    assert "1 (baseline)" in text
    html = race.table()._repr_html_()
    assert html.count("<tr>") == 3
