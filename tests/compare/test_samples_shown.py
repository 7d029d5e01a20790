"""What samples show: the table, the front, the scoreboard, and what they refuse."""

from __future__ import annotations

import itertools
import json
import math
import random
from pathlib import Path

import pytest

from labkit.compare import (
    PEAK_MEMORY,
    STEP_TIME,
    Quantity,
    Samples,
    scoreboard,
)
from labkit.compare.front import unbeaten
from labkit.training.task import ACCURACY, LOSS

POINTS, NATS = Quantity.of(ACCURACY), Quantity.of(LOSS)


def noisy(scale: float, rounds: int = 30, seed: int = 0) -> list[float]:
    generator = random.Random(seed)
    return [scale * generator.uniform(0.095, 0.105) for _ in range(rounds)]


def full() -> Samples:
    samples = Samples(("a", "b"), (STEP_TIME, POINTS, PEAK_MEMORY))
    for number, (slow, fast) in enumerate(zip(noisy(1.5), noisy(1.0, seed=1), strict=True)):
        samples.add("a", STEP_TIME, slow, round=number)
        samples.add("b", STEP_TIME, fast, round=number)
    for arm, right in (("a", 80), ("b", 85)):
        samples.add_scores(arm, POINTS, [1.0] * right + [0.0] * (100 - right))
        samples.add(arm, PEAK_MEMORY, right * 2**20)
    return samples


def test_the_table_has_a_row_an_arm_and_says_what_it_is_based_on() -> None:
    samples = full()
    table = samples.table("Two nets.")
    assert table.headers == (
        "arm", "ms a step", "speed", "accuracy, %", "difference, points", "peak MiB a step"
    )  # fmt: skip
    (a, b) = table.rows
    assert (a[2], a[4]) == ("1 (baseline)", "0 (baseline)")
    assert b[2] == f"{samples.against('b'):.2fx}"
    assert b[4] == f"{samples.against('b', on='accuracy'):+.2f}"
    assert table.note == (
        "Two nets. Step time: median of 30 rounds, compared round by round. Accuracy: 100 examples,"
        " the same for all, compared one by one. In brackets: 95 % intervals."
    )
    brief = samples.table(brief=True).rows
    assert [row[2] for row in brief] == [a[2], b[2]] and [row[4] for row in brief] == [a[4], b[4]]
    assert [row[1] for row in brief] == [row[1].partition(" ")[0] for row in (a, b)]


def test_an_empty_table_has_dashes_and_claims_nothing() -> None:
    table = Samples("ab", (STEP_TIME, POINTS)).table()
    assert table.rows[1] == ("b", "–", "–", "–", "–")
    assert table.note == "In brackets: 95 % intervals."


def test_a_cell_shows_as_many_decimals_as_its_verdict() -> None:
    samples = Samples.of_timings({"a": [1.0302] * 8, "b": [1.0] * 8, "c": [50.0] * 8}, STEP_TIME)
    assert [row[2] for row in samples.table().rows[1:]] == [
        "1.03x (1.03 to 1.03)",
        "0.0206x (0.0206 to 0.0206)",
    ]
    narrow = Samples.of_timings({"a": [1.0204] * 8, "b": [1.0] * 8}, STEP_TIME)
    assert narrow.table().rows[1][2] == "1.0204x (1.0204 to 1.0204)"
    assert "1.0204x faster" in str(narrow.verdict("b"))


def test_the_front_is_what_brute_force_finds() -> None:
    generator = random.Random(0)
    for number in range(300):
        sign = 1 if number % 2 else -1
        names = range(generator.randint(1, 9))  # few values: many ties
        places = {str(i): (generator.randint(1, 4), generator.randint(1, 4)) for i in names}
        beaten = {
            one
            for (one, (time, worth)), (other_time, other_worth) in itertools.product(
                places.items(), places.values()
            )
            if other_time <= time
            and sign * other_worth >= sign * worth
            and (other_time, other_worth) != (time, worth)
        }
        front = unbeaten(places, higher_is_better=sign == 1)
        assert set(front) == set(places) - beaten and len(front) == len(set(front))
        times = [places[name][0] for name in front]
        assert times == sorted(times)


def test_the_front_of_samples_turns_losses_round() -> None:
    samples = full()
    assert samples.front(STEP_TIME, POINTS) == ("b",)
    for arm, loss in (("a", 1.0), ("b", 2.0)):
        samples.add_scores(arm, NATS, [loss] * 4)
    assert samples.front("step time", "loss") == ("b", "a")


def test_a_row_goes_to_the_scoreboard_and_back(tmp_path: Path) -> None:
    samples, file = full(), tmp_path / "a" / "scoreboard.jsonl"
    figures = samples.figures()
    row = scoreboard.row("memory format", figures, notebook="00", profile="smoke")
    assert {name: figure["unit"] for name, figure in row["figures"].items()} == {
        "a: step time": "ms",
        "a: accuracy": "%",
        "a: peak memory": "MiB",
        "b: step time": "ms",
        "b: speed over a": "x",
        "b: accuracy": "%",
        "b: accuracy over a": "points",
        "b: peak memory": "MiB",
    }
    scoreboard.append(row, file)
    scoreboard.append(scoreboard.row("again", figures), file)
    back = scoreboard.read([file])
    assert back[0] == json.loads(json.dumps(row, allow_nan=False))
    figure = back[0]["figures"]["b: speed over a"]
    assert figure["low"] < figure["value"] < figure["high"] and figure["n"] == 30
    assert "host" not in json.dumps(back[0]["facts"])

    other, merged = tmp_path / "other.jsonl", tmp_path / "merged.jsonl"
    other.write_text(file.read_text())  # the same rows from elsewhere count once
    scoreboard.append(scoreboard.row("third", figures), other)
    assert scoreboard.merge([file, other], merged) == 3
    assert {r["what"] for r in scoreboard.read([merged])} == {"memory format", "again", "third"}


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "scoreboard.jsonl"
    file.write_text('{"what": 1}\n')
    with pytest.raises(ValueError, match=r"scoreboard\.jsonl, line 1: not a scoreboard row"):
        scoreboard.read([file])
    file.write_text("{broken\n")
    with pytest.raises(ValueError, match="line 1: not JSON"):
        scoreboard.read([file])
    with pytest.raises(ValueError, match="it lacks notebook"):
        scoreboard.append({"what": "x"}, file)


# -- what is refused -------------------------------------------------------------------------------


def test_an_arm_without_a_name_is_no_baseline() -> None:
    samples = Samples(("a", "", "c"), (STEP_TIME,))
    for arm, seconds in (("a", 1.0), ("", 2.0), ("c", 4.0)):
        for number in range(8):
            samples.add(arm, STEP_TIME, seconds, round=number)
    assert samples.verdict("c", over="").estimate.value == 0.5
    assert samples.verdict("c", over="").baseline == ""
    assert set(samples.ratios("c", over="")) == {0.5}
    assert samples.verdict("c").estimate.value == 0.25


def test_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(ValueError, match="arms must be different names, at least one"):
        Samples(())
    with pytest.raises(ValueError, match="arms must be different names"):
        Samples("aa")
    with pytest.raises(ValueError, match="arms must be different names"):
        Samples(("a", 1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="scores of 'a' must be finite"):
        full().add_scores("a", NATS, [1.0, math.nan])
    samples = full()
    for ask in (samples.value, samples.against, samples.verdict, samples.ratios):
        with pytest.raises(ValueError, match="there is no arm 'c'; there are a, b"):
            ask("c")
        with pytest.raises(ValueError, match="on must be one of step time, accuracy, .* got 'x'"):
            ask("b", on="x")
    with pytest.raises(ValueError, match="'accuracy' is compared by differences"):
        samples.ratios("b", on="accuracy")
    with pytest.raises(ValueError, match=r"as many rounds for each arm, got \{'a': 1, 'b': 2\}"):
        Samples.of_timings({"a": [1.0], "b": [1.0, 2.0]}, STEP_TIME)
    for quantity, value in ((STEP_TIME, 0.0), (STEP_TIME, math.nan), (STEP_TIME, math.inf)):
        with pytest.raises(ValueError, match="value of 'step time' must be a positive number"):
            samples.add("a", quantity, value)
    with pytest.raises(ValueError, match="value of 'loss' must be finite, got nan"):
        samples.add("a", NATS, math.nan)
