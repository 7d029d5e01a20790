"""Notebook 01: its checks, its sentences for every outcome, and its figures."""

from __future__ import annotations

import itertools
import math
from unittest.mock import Mock

import numpy
import pytest
import torch
from support.common import SILLY, refuses, tiny_recipe
from support.verdicts import each_call

from labkit.compare import FORWARD_TIME, STEP_TIME, Quantity, Race, Samples, Verdict
from labkit.lessons import Prediction, sentence
from labkit.lessons.training_loop import checks, measure, pictures, words
from labkit.measure import Timing
from labkit.training import Phases
from labkit.training.task import ACCURACY

# ---- checks


def test_every_order_that_trains_is_right_and_no_other():
    """The check agrees with really training in that order, for all 120 orders."""
    for order in itertools.permutations(checks.LINES):
        assert checks.step_order(list(order)).right is trains(order), order


def trains(order):
    """Do three steps in that order; say whether the weight moves as gradient descent does."""
    weight = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    made = {}
    lines = {
        "zero_grad": optimizer.zero_grad,
        "forward": lambda: made.update(outputs=3 * weight),
        "loss": lambda: made.update(loss=made.pop("outputs").sum()),
        "backward": lambda: made.pop("loss").backward(),
        "step": optimizer.step,
    }
    try:
        for _ in range(3):
            for name in order:
                lines[name]()
    except KeyError:  # it needs what is not there yet
        return False
    return math.isclose(weight.item(), 1 - 3 * 0.1 * 3, abs_tol=1e-6)


def test_orders_that_are_no_orders():
    answers = [["step"] * 5, ["zero_grad", "forward"], [*checks.LINES, "step"], "zero_grad"]
    odd = [[1, 2, 3, 4, 5], [numpy.ones(2)] * 5, [None] * 5, ["Step", *checks.LINES[:4]]]
    refuses(checks.step_order, [*answers, *odd, *SILLY])
    assert "zero_grad" in checks.step_order(["forward"] * 5).message


def test_summed_gradient():
    model = torch.nn.Linear(3, 1)
    model(torch.ones(1, 3)).sum().backward()
    once = model.weight.grad.clone()
    for _ in range(4):
        model(torch.ones(1, 3)).sum().backward()
    answer = float((model.weight.grad / once).mean())
    assert checks.summed_gradient(answer).right
    refuses(checks.summed_gradient, [1, 2, 4, 6, 16, 25, 32, 1 / 5, -5, [5], *SILLY])
    assert all("double" in checks.summed_gradient(n).message for n in (16, 32))


def test_amdahl():
    shares = {"data": 0.02, "forward": 0.35, "backward": 0.6, "optimizer": 0.03}
    assert checks.amdahl(2.5, shares).right
    near = [0.4, 0.6, 1 / 0.6, 1.6, 2.6, 2.4, 60, 0, -2.5, [2.5]]
    refuses(checks.amdahl, [*near, *SILLY], shares)
    assert "1 / share" in checks.amdahl(1 / 0.6, shares).message
    assert checks.amdahl(2.0, {"backward": 0.5}).right  # there both are the same number
    assert checks.amdahl(numpy.float64(2.5), shares).right


def test_checkpoint_parts():
    right = {"weights", "momentum", "step number", "random generators", "place in the data"}
    for kind in (set, frozenset, list, tuple, sorted, dict.fromkeys):
        assert checks.checkpoint_parts(kind(right)).right
    assert checks.checkpoint_parts(name.title() for name in right).right is False  # no collection
    assert checks.checkpoint_parts([name.title() for name in right]).right
    others = [right - {name} for name in right] + [right | {n} for n in checks.NOT_NEEDED]
    odd = [{"weight"}, ["weights", 1], ["weights", ["momentum"]], "weights", set(), {"a": 1}]
    refuses(checks.checkpoint_parts, [*others, *odd, *SILLY])
    assert "uses" not in checks.checkpoint_parts(right - {"momentum"}).message
    assert "earlier" in checks.checkpoint_parts(right - {"momentum"}).message


# ---- sentences


def phases(data=0.01, forward=0.3, backward=0.6, optimizer=0.09, n=20):
    return [Phases(data, forward, backward, optimizer)] * n


def test_shares_add_up_to_the_whole():
    shares = measure.shares([*phases(), Phases(1.0, 0.0, 0.0, 0.0)])
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["data"] == pytest.approx(1.2 / 21)
    with pytest.raises(ValueError, match="phases is empty"):
        measure.shares([])


@pytest.mark.parametrize(
    ("backward", "phrase"),
    [(0.3, "it takes less time"), (0.61, "time and count agree"), (0.9, "it takes longer")],
)
def test_reading_phases(backward, phrase):
    text = words.read_phases(phases(backward=backward), 2.0, Prediction(50, " %"))
    assert phrase in text and f"takes {backward / 0.3:.2f}x the time" in text
    assert "largest part is backward" in text if backward > 0.3 else "You predicted 50" in text
    assert "too few" in words.read_phases(phases(n=3), 2.0, Prediction(50, " %"))


def test_a_view_that_was_stopped_at_once_is_helped_out():
    training = tiny_recipe(steps=40).training(timed=True)
    seen = list(itertools.islice(training, 2))
    assert len(measure.phases_of(seen, training)) == measure.FEWEST - measure.WARMUP
    rest = list(training)
    assert len(measure.phases_of(rest, training)) == 40 - measure.FEWEST - measure.WARMUP


def race_of(time: Verdict, result: Verdict) -> Race:
    """A race of which only the verdicts are asked."""
    told = {"step time": time, "accuracy": result}
    return Mock(spec=Race, verdict=lambda candidate, on="step time": told[on])


def test_reading_the_race():
    results = each_call(Quantity.of(ACCURACY), candidate="AdamW", baseline="SGD")
    for call, time in each_call(candidate="AdamW", baseline="SGD").items():
        text = words.read_race(race_of(time, results[call]), 0.1, Prediction(0.9))
        assert str(time) in text and str(results[call]) in text and "You predicted 0.9x" in text
        factor = words.times_the_work(time.estimate.value, 0.1)
        said = f"would give about 0.909x, and the ratio above means about {factor:.1f} ("
        assert "inf" not in text and (said in text) == (call != "too few")
        for each, of in ((words.OPTIMIZER_TIME, time), (words.OPTIMIZER_RESULT, results[call])):
            assert sentence(of, each, work="").strip() in text


def test_amdahl_turned_round():
    """With a share of 0.1, a step that is 10 % longer means that this part doubled."""
    assert words.times_the_work(1 / 1.1, 0.1) == pytest.approx(2.0)
    assert words.times_the_work(1.0, 0.1) == 1.0
    assert words.times_the_work(2.0, 0.1) == 0.0  # not even without that part
    assert words.times_the_work(0.0, 0.1) == math.inf


def timings(**factors):
    return {
        name: [0.01 * factor * (1 + 0.02 * (i % 3)) for i in range(20)]
        for name, factor in factors.items()
    }


@pytest.mark.parametrize(
    ("factor", "time"),
    [(0.8, "faster here"), (1.0, "as fast here"), (1.3, "slower here")],
)
@pytest.mark.parametrize(
    ("peak", "memory"), [(30 << 20, "needs 3.0 times the memory"), (10 << 20, "no memory that")]
)
def test_reading_gradient_modes(factor, time, peak, memory):
    times = timings(recorded=1, no_grad=factor, inference_mode=factor)
    samples = Samples.of_timings(times, FORWARD_TIME)
    for name in times:
        samples.add(name, measure.FORWARD_MEMORY, peak if name == "recorded" else 10 << 20)
    text = words.read_modes(samples)
    assert f"**no_grad, inference_mode**: {time}" in text and memory in text
    assert f"**{samples.verdict('inference_mode', 'no_grad')}**" in text
    assert "peak MiB a forward pass" in str(samples.table())


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(
    ("factor", "phrase"),
    [(0.9, "run the cell again"), (1.0, "costs nothing that matters"), (1.2, "has its price")],
)
def test_reading_the_loss(device, factor, phrase):
    times = {"not read": timings(a=1)["a"], **timings(read=factor)}
    text = words.read_item(Samples.of_timings(times, STEP_TIME), device)
    assert phrase in text
    assert ("look into memory" in text) == (device == "cpu" and factor == 1)
    assert ("each read waits" in text) == (device == "cuda" and factor > 1)


def test_reading_a_resume_from_weights_alone():
    text = words.read_weights_only([9.0, 1.0, 2.0, 3.0], [1.0, 2.5, 3.1])
    assert "2 of 3 losses differ" in text and "0.20 on average" in text and "0.50 at most" in text
    assert "does not say how much each" in text
    assert "the same" in words.read_weights_only([9.0, 1.0], [1.0])


def test_reading_the_cost_of_a_save():
    times = {"save": Timing("save", (0.02,) * 9), "step": Timing("step", (0.01,) * 9)}
    text = words.read_save(times)
    assert "one save in 200 steps" in text
    assert "58.8 s" in text  # sqrt(2 * 0.02 * 86,400)


def test_phases_by_batch_take_turns_and_leave_the_warm_up_out():
    taken = measure.phases_by_batch(tiny_recipe(), (8, 16), rounds=3, warmup=2)
    assert {size: len(steps) for size, steps in taken.items()} == {8: 3, 16: 3}
    assert all(min(step) >= 0 and sum(step) > 0 for steps in taken.values() for step in steps)


@pytest.mark.parametrize("sizes", [(128, 16), (16, 128), (128, 512)])
def test_the_fixed_cost_of_a_line_is_found(sizes):
    taken = {size: phases(0, 0.002, 0.0001 * size, 0, n=8) for size in sizes}
    text = words.read_batches(taken)
    assert "fixed cost of 2 ms" in text
    small = min(sizes)
    assert f"{0.002 / (0.002 + 0.0001 * small):.0%} of a step of {small} images" in text
    assert f"{small / (0.002 + 0.0001 * small):,.0f} with {small}" in text


@pytest.mark.parametrize(
    ("large", "n", "phrase"),
    [(0.1, 8, "something else grows"), (0.008, 8, "no fixed cost shows"), (0.004, 3, "too few")],
)
def test_no_fixed_cost_is_made_up(large, n, phrase):
    taken = {16: phases(0, 0, 0.001, 0, n=n), 128: phases(0, 0, large, 0, n=n)}
    text = words.read_batches(taken)
    assert phrase in text and "fixed cost of" not in text


# ---- figures


def test_bars_are_as_high_as_an_image_takes():
    taken = {128: phases(0.128, 0.256, 0.512, 0.128), 16: phases(0.016, 0.032, 0.16, 0.032)}
    [axes] = pictures.batch_bars(taken).get_axes()
    heights = [[bar.get_height() for bar in container] for container in axes.containers]
    expected = [[1000, 1000], [2000, 2000], [4000, 10_000], [1000, 2000]]
    numpy.testing.assert_allclose(heights, expected)
    texts = [text.get_text() for text in axes.texts]
    assert {"8000", "15000", *Phases._fields[:4]} <= set(texts)


def test_resumed_curves_start_at_the_checkpoint_and_what_is_equal_lies_on_top():
    whole = [3.0, 2.0, 1.5, 1.2, 1.0]
    continued = {"same": whole[2:], "other": [2.0, 2.0, 2.0]}
    [axes] = pictures.resumed(whole, continued).get_axes()
    mark, never, same, other = axes.get_lines()
    assert list(same.get_xdata()) == list(other.get_xdata()) == [3, 4, 5]
    numpy.testing.assert_array_equal(same.get_ydata(), never.get_ydata()[2:])
    assert (numpy.asarray(other.get_ydata()) > same.get_ydata()).all()
    assert mark.get_xdata()[0] == 2
