"""Notebook 13: its checks, and its sentences for every outcome."""

from __future__ import annotations

import math

import pytest
import torch
from support.common import check_is_sound

from labkit.lessons import predict
from labkit.lessons.model_parallel import checks, pictures, words
from labkit.plan.memory import StateBytes
from labkit.plan.pipeline_schedules import pipeline_schedule
from labkit.widgets.style import to_png


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (checks.gigabytes_of_seven_billion, 112, {28: "", 56: "", 84: "", 112e9: "", -112: ""}),
        (
            checks.fewest_microbatches,
            27,
            {26: "More are needed", 28: "Fewer would do", 4: "42.9%", 0: "", 10**12: ""},
        ),
        (
            checks.lowest_stage,
            2,
            {0: "needs 16.0 GB", 1: "needs 9.0 GB", 3: "", 4: "1, 2 and 3", -1: "1, 2 and 3"},
        ),
    ],
)
def test_checks(check, right, wrong):
    check_is_sound(check, right, wrong)


def layers(*ratios):
    measured = {}
    for width, ratio in zip((32, 96, 384), ratios, strict=True):
        measured |= {f"whole {width}": [1e-3] * 30, f"split {width}": [1e-3 / ratio] * 30}
    return words.layer_ratios(measured)


@pytest.mark.parametrize(
    ("ratios", "phrase"),
    [
        ((0.3, 0.6, 1.3), "Up to width 96"),
        ((0.3, 0.6, 0.9), "pays at none of these widths here. At width 32, 96, 384 the sums cost"),
        ((0.3, 1.0, 1.0), "At width 32 the sums cost"),
        ((1.0, 1.01, 0.99), "can't be told at any of these widths"),
        ((1.3, 1.6, 1.9), "loses at none of these widths here, and pays at width 32, 96, 384:"),
        ((1.0, 1.0, 1.9), "pays at width 384:"),
        ((1.3, 0.6, 1.9), "no clear border"),
    ],
)
def test_layers(ratios, phrase):
    said = words.read_layers(layers(*ratios))
    assert phrase in said and f"{ratios[0]:.2f}x" in said


def pipelines(**idle):
    """Timelines as the schedules have them, or with shorter passes, so that more is idle."""
    counts = {"one": 1, "two": 2, "eight": 8}
    made = {}
    for name, factor in idle.items():
        blocks = pipeline_schedule("GPipe", 2, counts[name])
        made[name] = [b._replace(end=b.start + factor * (b.end - b.start)) for b in blocks]
    return made


@pytest.mark.parametrize(
    ("made", "there", "never"),
    [
        (
            pipelines(eight=1, two=1, one=1),
            ["one**: 50% idle; the formula says 50%", "eight**: 11% idle; the formula says 11%"],
            "beyond the formula",
        ),
        (pipelines(eight=1, two=1, one=1), ["The fewer", "With one microbatch it is no"], "not al"),
        (pipelines(eight=0.9, two=1), ["eight**: 19%", "beyond the formula"], "no pipeline"),
        (pipelines(eight=0.5, two=1, one=1), ["not always more idle here"], "The fewer"),
    ],
    ids=["as by the formula", "one is no pipeline", "more than by it", "in no order"],
)
def test_timelines(made, there, never):
    said = words.read_timelines(made, 2)
    assert all(phrase in said for phrase in there) and never not in said, said


def test_losses_are_compared_where_ranks_have_them():
    assert words._over_ranks([[1.0, math.nan], [3.0, 2.0]]) == [2.0, 2.0]
    assert math.isnan(words._over_ranks([[math.nan], [math.nan]])[0])


# ---- what is printed as equal


def result(loss=2.0, **changes):
    return loss, {"a": torch.tensor([1.0, -4.0]), "b": torch.tensor([0.5])} | changes


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (result(), True),
        (result(2.0 + 1e-5), True),
        (result(2.0 + 5e-5), False),
        (result(math.nan), False),
        (result(a=torch.tensor([1.0 + 3e-5, -4.0])), True),  # the largest gradient is 4
        (result(a=torch.tensor([1.0 + 6e-5, -4.0])), False),
        (result(a=torch.tensor([math.nan, -4.0])), False),
        (result(b=torch.tensor([0.5, 0.5])), False),
        (result(c=torch.zeros(1)), False),
        ((2.0, {"a": torch.tensor([1.0, -4.0])}), False),
    ],
)
def test_equal_means_equal(other, same):
    assert words.equal(other, result()) is same


def test_gradients_of_stages_are_joined():
    loss, gradients = words.joined([(2.0, {"a": 1}), (2.0, {"b": 2})])
    assert (loss, gradients) == (2.0, {"a": 1, "b": 2})


def test_weights_are_the_same_to_the_bit():
    weights = {"a": torch.tensor([1.0])}
    assert words.same_weights(weights, {"a": torch.tensor([1.0])})
    assert not words.same_weights(weights, {"a": torch.tensor([1.0]).nextafter(weights["a"] * 2)})
    assert not words.same_weights(weights, {})


HELD = StateBytes(4_000_000, 4_000_000, 8_000_000)


def test_losses_of_steps_are_compared_as_means_over_the_ranks():
    expected = [([3.0, 1.0], HELD), ([1.0, 1.0], HELD)]
    assert words.same_losses([([2.0, 1.0], HELD), ([2.0, 1.0], HELD)], expected)
    assert not words.same_losses([([2.0, 1.0], HELD), ([2.0, 1.001], HELD)], expected)


def test_bytes_beside_the_formula():
    whole = [([1.0], HELD)]
    half = [([1.0], StateBytes(2_000_000, 2_000_000, 4_080_000))]
    table = words.bytes_table(1_000_000, 2, [whole, half], half)
    assert [row[0] for row in table.rows] == ["data parallel", "ZeRO-1", "fully_shard"]
    assert table.rows[0][1:] == ("4 MB", "4 MB", "8 MB", "16 MB", "16 MB", "+0.00%")
    assert table.rows[1][-2:] == ("12 MB", "-32.67%")
    assert table.rows[2][-2:] == ("8 MB", "+1.00%")


# ---- the race


def raced(data=1.5, tensor=0.5, pipeline=0.8, apart=0.0):
    """Two jobs on two ranks, with planted speeds over one process."""
    jobs = {}
    for way, speed in (("tensor", tensor), ("pipeline", pipeline)):
        times = {"one process": [0.01] * 30, "data": [0.01 / data] * 30, way: [0.01 / speed] * 30}
        first = {name: [2.0, 1.0] for name in times} | {way: [2.0, 1.0 + apart]}
        second = first | {"one process": [math.nan] * 2}
        jobs[way] = [(times, first), (times, second)]
    return jobs


@pytest.mark.parametrize(
    ("planted", "phrase", "never"),
    [
        (
            {},
            ["Slower than plain data parallel: tensor, pipeline. **Where", "one process: data. T"],
            "No way",
        ),
        (
            {"tensor": 1.9},
            ["Slower than plain data parallel: pipeline. Not seen to be slower: tensor.", "tensor"],
            "does not pay",
        ),
        (
            {"tensor": 1.9, "pipeline": 1.7},
            ["Neither tensor nor pipeline", "Faster than one process: data, tensor, pipeline."],
            "does not pay",
        ),
        ({"data": 0.9}, ["No way is shown to be faster than one process"], "Faster than"),
        ({"data": 0.4}, ["Neither tensor nor pipeline"], "does not pay"),
        ({"apart": 1e-5}, ["All ways learn the same", "1e-05 apart"], "wrong"),
        ({"apart": 0.1}, ["drift apart by up to 0.1"], "learn the same"),
        ({"apart": math.nan}, ["no numbers"], "learn the same"),
    ],
)
def test_the_race_is_told_as_it_went(planted, phrase, never):
    said = words.read_race(raced(**planted), predict(1.0))
    assert "You predicted 1x" in said
    for word in phrase:
        assert word in said
    assert never not in said


def test_verdicts_are_over_one_process_of_the_same_job():
    jobs = raced()
    for times, _ in jobs["pipeline"]:
        times.update({name: [3 * t for t in taken] for name, taken in times.items()})
    verdicts = words.race_verdicts(jobs)
    values = {way: verdict.estimate.value for way, verdict in verdicts.items()}
    assert values == pytest.approx({"data": 1.5, "tensor": 0.5, "pipeline": 0.8})


# ---- the picker


@pytest.mark.parametrize("model", pictures.SIZES)
def test_every_model_of_the_picker_can_be_drawn_and_told(model):
    for devices, memory, precision in ((1, 8, "fp32"), (8, 80, "bf16"), (1024, 16, "bf16")):
        fig, text = pictures.picker(model, devices, memory, 8, precision)
        assert len(to_png(fig)) > 1000
        assert text.startswith("Nothing fits.") == ("does not fit" in text)
        marked = [t for t in fig.axes[0].get_yticklabels() if t.get_text().startswith("➜")]
        assert len(marked) == (0 if text.startswith("Nothing fits.") else 1)
