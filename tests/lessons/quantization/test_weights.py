"""Notebook 15, second half: its sentences and tables for every outcome, what it trains."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from labkit import data, models
from labkit.compare import LATENCY, Tradeoff
from labkit.lessons import predict
from labkit.lessons.quantization import measure, weights
from labkit.lessons.quantization.measure import Quality
from labkit.lessons.tradeoffs import read_tradeoff
from labkit.measure import Estimate, Timing


def quality(lost=0.0, width=0.3, accuracy=90.0, error=1.0):
    return Quality(accuracy, Estimate(lost, lost - width, lost + width, 2000), error)


def times(rounds=10, **seconds):
    return {name: Timing(name, (s,) * rounds) for name, s in seconds.items()}


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        (1.0, "loses 1.00 (0.70 to 1.30) points"),
        (-1.0, "gains 1.00 (0.70 to 1.30) points"),
        (0.1, "loses nothing that can be shown (0.10 (-0.20 to 0.40) points)"),
    ],
)
def test_lost_words(lost, words):
    assert weights.lost_words(quality(lost)) == words


# ---- transformer


def language(narrow, wide):
    """Times of static and of the eager way at two widths; fp32 takes 1 second."""
    losses = {w: {"fp32": 5.0, "static": 5.01, "quantize_, eager": 5.0} for w in (128, 256)}
    made = {
        width: {n: Timing(n, (t,) * 10) for n, t in zip(losses[128], (1, *given), strict=True)}
        for width, given in ((128, narrow), (256, wide))
    }
    return losses, made


@pytest.mark.parametrize(
    ("narrow", "wide", "there", "absent"),
    [
        ((1.0, 2.0), (0.5, 2.0), ["**static**: faster at width 256 only", "torch.compile"], []),
        ((0.5, 2.0), (0.5, 2.0), ["faster at every width", "slower at every width here"], []),
        ((2.0, 1.0), (2.0, 0.5), ["slower at every", "faster at width 256"], ["torch.compile"]),
        ((1.0, 1.0), (1.0, 1.0), ["not shown to be faster"], ["torch.compile", "slower"]),
        ((1.0, 2.0), (2.0, 1.0), ["not shown to be faster"], ["torch.compile", "slower at"]),
    ],
)
def test_language(narrow, wide, there, absent):
    losses, made = language(narrow, wide)
    said = weights.read_language(losses, made)
    assert all(words in said for words in [*there, "moves by 0.0100 nats"]), said
    assert not any(words in said for words in absent), said
    rows = weights.language_table(losses, made).rows
    assert rows[0] == ("128", "fp32", "5.0000", "1 (baseline)")
    assert rows[4][:3] == ("256", "static", "5.0100") and f"{1 / wide[0]:.2f}x" in rows[4][3]


def test_the_language_model_learns():
    tokens = torch.arange(4000) % 10
    text = data.TextData(tokens, tokens, 16, 10, 0, None)
    some = [batch for batch, _ in zip(text.batches(8), range(2), strict=False)]
    new, trained = (measure.language_model(text, 16, steps) for steps in (1, 30))
    losses = measure.next_token_losses({"new": new, "trained": trained}, some)
    assert losses["trained"] < losses["new"] - 0.2
    x, y = some[0]
    only = measure.next_token_losses({"new": new}, some[:1])["new"]
    assert only == pytest.approx(models.next_token_loss(new(x), y).item())


def test_torchao_s_eager_way_leaves_the_model_alone():
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(64, 32)), torch.randn(8, 64)
    before = model(inputs)
    rounded = measure.torchao_eager(model)(inputs)
    assert torch.equal(model(inputs), before)
    assert 0 < measure.distance(before, rounded) < 0.03


# ---- weights only


@pytest.mark.parametrize(
    ("speeds", "rounds", "words"),
    [
        ((1.0, 1.0), 10, "**None is faster:**"),
        ((0.5, 0.9), 10, "**None is faster:**"),
        ((1.0, 1.5), 10, "Faster here: 4 bits, although"),
        ((1.0, 1.5), 3, "too few times"),
    ],
)
def test_weights(speeds, rounds, words):
    names = ("fp32", "8 bits", "4 bits")
    taken = {n: Timing(n, (1 / s,) * rounds) for n, s in zip(names, (1, *speeds), strict=True)}
    stored = dict(zip(names, (8000, 2000, 1000), strict=True))
    found = {"fp32": quality(error=0), "8 bits": quality(), "4 bits": quality(1.0, error=9)}
    said = weights.read_weights(stored, found, taken)
    assert words in said and "**4 bits** is the smallest, 8.0 times smaller" in said
    assert "loses 1.00" in said
    table = weights.weights_table({"8 bits": 2100, "4 bits": 1100}, stored, found, taken)
    assert table.rows[0] == ("fp32", "", "8", "0.0 %", "90.00 %", "1 (baseline)")
    assert table.rows[2][:4] == ("4 bits", "1", "1", "9.0 %")


def test_bits():
    found = {32: quality(), 8: quality(), 4: quality(0.4), 3: quality(2.0), 2: quality(60.0)}
    said = weights.read_bits(found)
    assert "At **3 bits** rounding loses 2.00" in said and "at 2 bits 60." in said
    assert "at 2 bits" not in weights.read_bits({b: found[b] for b in (32, 8, 3)})
    assert "No number of bits" in weights.read_bits({b: found[b] for b in (32, 8, 4)})
    assert [row[0] for row in weights.bits_table(found).rows] == ["32", "8", "4", "3", "2"]


@pytest.mark.parametrize(
    ("lost", "there", "absent"),
    [
        ((20.0, 15.0, 5.0), ["**brings back 75 %**", "meeting the rounding"], ["overlap"]),
        ((20.0, 2.0, 5.0), ["**brings back 75 %**", "the better half"], ["meeting", "overlap"]),
        ((20.0, 5.0, 5.5), ["**brings back 72 %**", "intervals overlap"], ["meeting", "half"]),
        ((20.0, 20.0, 25.0), ["brings nothing back", "20.0 points lost."], ["meeting", "overlap"]),
    ],
)
def test_aware(lost, there, absent):
    said = weights.read_aware(*map(quality, lost), predict(50, " %"))
    assert all(words in said for words in [*there, "You predicted 50 %"]), said
    assert not any(words in said for words in absent), said


def test_nothing_to_bring_back():
    said = weights.read_aware(quality(0.1), quality(), quality(), predict(50, " %"))
    assert "nothing to bring back" in said


def test_recovered():
    found = weights.recovered(quality(20.0), quality(5.0, width=1.0))
    assert (found.value, found.low, found.high) == pytest.approx((75, 70, 80))


# ---- the choice


@pytest.fixture
def tradeoff():
    """Make a tradeoff that has seen 1,000 images: {variant: (right ones, milliseconds, bytes)}."""

    def make(**known):
        batches = [(torch.zeros(1), torch.zeros(1))]
        sizes = {name: size for name, (*_, size) in known.items()}
        made = Tradeoff({n: nn.Identity() for n in known}, batches, batches[0][0], 10, sizes)
        for name, (right, milliseconds, _) in known.items():
            made.samples.add_scores(name, made.metric, (torch.arange(1000) < right).float())
            for number in range(10):
                made.samples.add(name, LATENCY, milliseconds / 1000, round=number)
        return made

    return make


def test_choice(tradeoff):
    made = tradeoff(
        fp32=(900, 8.0, 4000), int8=(898, 2.0, 1000), tiny=(800, 1.0, 500), big=(910, 16.0, 8000)
    )
    said = read_tradeoff(made)
    assert "Not beaten in both, by point estimates: **tiny; int8; fp32; big**." in said
    assert "- tiny over fp32: cheaper but worse" in said and said.count("- ") >= 3
    taken = {name: needs for needs, name, _ in weights.choice_table(made).rows}
    assert taken == {
        "big": "every point of accuracy",
        "int8": "least time, 0.5 points to spare; smallest file, 0.5 points to spare",
        "tiny": "least time; smallest file",
    }
    assert "89.8 %, 2 ms a batch, 1 kB" in weights.choice_table(made).rows[1]
    tied = tradeoff(fp32=(900, 8.0, 4000), int8=(900, 2.0, 1000))
    (row,) = weights.choice_table(tied).rows
    assert row[1] == "int8" and "every point" in row[0]


def test_a_tradeoff_that_was_stopped_at_once():
    made = Tradeoff(
        {"fp32": nn.Identity(), "int8": nn.Identity()},
        [(torch.zeros(1), torch.zeros(1))],
        torch.zeros(1),
        sizes={"fp32": 4, "int8": 1},
    )
    assert "Nothing was measured yet" in read_tradeoff(made)
    assert weights.choice_table(made).rows == ()
