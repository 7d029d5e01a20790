"""Notebook 11: its checks, what it works out, and its sentences for every call."""

from __future__ import annotations

import pytest
import torch
from support.common import check_is_sound
from support.verdicts import each_call
from torchvision.models import resnet18

from labkit.compare import Quantity, Samples
from labkit.distributed.parallel.averaging import AVERAGINGS, CEILING, MEETING, STEPS
from labkit.lessons import Sentences, predict, sentence
from labkit.lessons.data_parallel import checks, measure, words
from labkit.lessons.data_parallel.measure import Span
from labkit.plan.efficiency import StepCost
from labkit.plan.messages import MessageCost
from labkit.training.task import ACCURACY

COST = StepCost(fixed=1e-3, image=1e-4, message=MessageCost(2e-4, 1e-9), gradient=310_696)


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (checks.uneven_mean, 2, {3: "mean of the two means", 1: "Weigh", 8: "Weigh"}),
        (
            checks.resnet_bytes,
            2 * 7 / 8 * 4 * 11_689_512,
            {4 * 11_689_512: "once", 28 * 11_689_512: "does better", 81.8: "in bytes"},
        ),
        (
            lambda answer: checks.smallest_batch(answer, COST),
            COST.smallest_batch(0.9, 8),
            {
                1: "still below",
                0.6 * COST.smallest_batch(0.9, 8): "still below",
                COST.smallest_batch(0.9, 8) - 1: "no power of two",
                COST.smallest_batch(0.9, 8) + 1: "no power of two",
                2**30: "a smaller power",
                COST.smallest_batch(0.9, 64): "64 ranks",
            },
        ),
    ],
)
def test_checks(check, right, wrong):
    check_is_sound(check, right, wrong)


def test_the_number_of_resnet18():
    assert sum(p.numel() for p in resnet18().parameters()) == 11_689_512


# ---- what it works out


def test_the_distance_from_one_process_is_relative():
    assert measure._distance(torch.full((9,), 1.01), torch.ones(9)) == pytest.approx(0.01, rel=1e-3)
    assert measure._distance(torch.ones(9), torch.ones(9)) == 0


def test_a_round_of_steps_is_shown_as_ms_a_step():
    samples = Samples.of_timings({"a": [STEPS * 0.002] * 9}, measure.ROUND_OF_STEPS)
    assert samples.value("a").value == pytest.approx(2.0)


STEP = [Span("forward", 0, 0.01), Span("backward", 0.01, 0.03), Span("optimizer", 0.031, 0.032)]


@pytest.mark.parametrize(
    ("messages", "early", "covered"),
    [
        ([(0.02, 0.026), (0.022, 0.028), (0.03, 0.031)], 2, 9.0),  # two overlap, one is late
        ([(0.02, 0.03), (0.022, 0.024), (0.025, 0.026)], 2, 10.0),  # two within another
        ([(0.03, 0.031)], 0, 1.0),
        ([(0.028, 0.03)], 0, 2.0),  # the last one never counts
    ],
)
def test_timeline(messages, early, covered):
    spans = [*STEP, *(Span("sending", *message) for message in messages)]
    said = words.read_timeline(spans)
    assert f"left in {len(messages)} messages. Of all but the last, {early} began" in said
    assert f"on its way for {covered:.1f} ms of a step of 32.0 ms" in said


def test_spans_start_with_the_forward_pass():
    events = [("gloo:all_reduce", 7, 9), ("forward", 2, 4), ("other", 0, 1), ("backward", 4, 8)]
    assert [span.what for span in measure.spans(events)] == ["forward", "backward", "sending"]
    assert measure.spans(events)[2] == ("sending", pytest.approx(5e-6), pytest.approx(7e-6))


def test_ranks_share_the_seeds():
    def ranks(*seeds):
        return {name: {s: torch.tensor([1.0, 0.0, s % 2]) for s in seeds} for name in measure.RULES}

    samples = measure.accuracies([ranks(0, 2), ranks(1)])
    assert samples.arms == tuple(measure.RULES)
    assert samples.value("same rate").n == 3
    assert samples.value("same rate").value == pytest.approx(100 * 4 / 9)


# ---- sentences


@pytest.mark.parametrize(
    ("sentences", "quantity"),
    [
        (words.WAITING, measure.ROUND_OF_STEPS),
        (words.TINY, measure.SAME_WORK),
        (words.RULE, Quantity.of(ACCURACY)),
    ],
)
def test_every_call_has_a_sentence_of_its_own(sentences: Sentences, quantity):
    said = [sentence(verdict, sentences) for verdict in each_call(quantity).values()]
    assert len(set(said)) == 5 and not any("{" in text for text in said)


def test_every_way_of_the_notebook_is_told():
    """No name is left out, also of those that have yet to come."""
    ways = Samples.of_timings(dict.fromkeys(AVERAGINGS, [1.0] * 9), measure.ROUND_OF_STEPS)
    said = words.read_ways(ways)
    for name in AVERAGINGS:
        assert name in said or name == "one message, shared memory"  # that is in the table alone
    for way, over in (("DDP, tuned", CEILING), (MEETING, CEILING), ("DDP, tuned", MEETING)):
        assert str(ways.verdict(way, over)) in said
    assert all(str(ways.verdict(name, "DDP, tuned")) in said for name in ways.arms[6:-1])


def test_scaling_reads_three_verdicts():
    seconds = {"one process": 1.0, "one rank's part": 0.5, "threads": 0.6, "processes": 0.55}
    times = {name: [each] * 9 for name, each in seconds.items()}
    scaling = Samples.of_timings(times, measure.ROUND_OF_STEPS)
    said = words.read_scaling(scaling, predict(2.0))
    assert "You predicted 2x" in said
    for over in ("one process", "one rank's part", "threads"):
        assert str(scaling.verdict("processes", over)) in said
    assert str(scaling.verdict("threads", "one process")) in said


@pytest.mark.parametrize(
    ("latency", "fate"),
    [(1e-6, "% too high"), (1e-2, "% too low"), (1.4e-3, "as good as right")],
)
def test_the_model_of_a_step_is_judged_as_a_prediction(latency, fate):
    """The model is right if it predicts the 0.9 that are measured, to within the margin."""
    cost = StepCost(0.0, 1e-4, MessageCost(latency, 1e-12), 310_696)
    times = {CEILING: [0.9] * 9, "one message": [1.0] * 9}
    said = words.read_cost(cost, Samples.of_timings(times, measure.ROUND_OF_STEPS))
    assert (
        fate in said and f"predicted {cost.efficiency(128, 2):.2f} of the ceiling's speed" in said
    )
    assert f"A message: {1e6 * latency:.0f} µs" in said and "You predicted" not in said
    assert "computes for 12.8 ms; the ceiling above took 300.0 (300.0 to 300.0) ms a step" in said


def test_rules_are_read_from_their_verdicts():
    generator = torch.Generator().manual_seed(0)
    shares = {"small batch": 0.9, "same rate": 0.3, "scaled rate": 0.7, "scaled rate, warm-up": 0.7}
    ranks = [
        {
            name: {seed: (torch.rand(900, generator=generator) < share).float()}
            for name, share in shares.items()
        }
        for seed in range(4)
    ]
    rules = measure.accuracies(ranks)
    said = words.read_rules(rules, steps=50)
    assert words.RULE.worse in said and "warm-up gives 10 to lower rates" in said
    assert str(rules.verdict("scaled rate", "same rate")) in said
    assert str(rules.verdict("scaled rate, warm-up", "scaled rate")) in said


@pytest.mark.parametrize("stopped", [[None, None], [(torch.ones(4), 9, 1), None]])
def test_a_training_that_was_stopped(stopped):
    assert words.read_training(stopped, torch.ones(4), 310_696) == words.STOPPED


def test_a_training_says_what_was_sent_and_compares_image_by_image():
    right = torch.arange(500) % 5 > 0
    ranks = [(right.float(), 310_696 * 50, 50), ((right & (torch.arange(500) > 99)).float(), 0, 50)]
    said = words.read_training(ranks, right.float(), 310_696)
    assert (
        "**311 kB a step from each rank, if its buckets travel in a ring**; the arithmetic" in said
    )
    assert "said 311 kB." in said and "15.5 MB" in said
    assert "rank 0 over one process, accuracy: can't tell" in said
    assert "rank 1 over one process, accuracy: -16.00 points: less accurate" in said
