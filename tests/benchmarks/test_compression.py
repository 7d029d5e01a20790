"""The benchmarks of pruning and quantization: their rows from planted data, and what they compare.

Nothing here asserts on a time: the clock's part of a figure is planted.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks import pruning, quantization, trained
from benchmarks.pruning import MASKED, PRUNED, TRAINED_ON, WHOLE
from benchmarks.quantization import FLOAT, FOLDED, INT8
from labkit import models
from labkit.compression import quantize
from labkit.facts import threads
from labkit.models import next_token_loss

MACHINE = [1.0, 7.0, 2.0, 1.0, 1.0, 3.0, 1.0]  # whose speed changes while it is measured
TINY = trained.Scale(
    (16,), seeds=2, train=780, test=50, epochs=1, more=1, rounds=3, turns=2, batch=4
)


@pytest.fixture(autouse=True)
def one_thread():
    with threads(1):
        yield


def taking(ratio: float) -> list[float]:
    return [ratio * seconds for seconds in MACHINE]


def by_name(rows):
    return {row.name: row for row in rows}


def figures(row):
    return row.estimate.value, row.estimate.low, row.estimate.high


# --- pruning


def pruned(**changes) -> pruning.Measured:
    planted = {
        "seconds": {
            WHOLE: taking(4.0),
            MASKED: taking(4.0),
            "1": taking(4.0),
            "8": taking(2.5),
            "16": taking(2.0),
            "whole, folded": taking(3.0),
            "16, folded": taking(2.0),
        },
        "fewer": {1: 2.0, 8: 2.0, 16: 2.5},
        "accuracy": {WHOLE: [90.0, 92.0, 91.0], PRUNED: [89.5, 91.7, 90.9]},
        "bytes": {WHOLE: 1000, PRUNED: 400, "whole, compressed": 900, "masked, compressed": 300},
    }
    return pruning.Measured(32, **(planted | changes))


def test_what_the_clock_gives_of_what_the_operations_promise():
    rows = by_name(pruning.rows(pruned()))
    ways = (1, 8, 16, "16, folded")
    gained = {m: rows[f"conv net 32, multiple {m}: speed / operations"] for m in ways}
    assert [figures(row) for row in gained.values()] == [
        pytest.approx((share, share, share)) for share in (0.5, 0.8, 0.8, 0.6)
    ]
    assert all(row.estimate.n == len(MACHINE) for row in gained.values())
    assert gained[8].note == "1.60x faster, 2.00x fewer operations"
    assert gained[16].note.startswith("2.00x faster, 2.50x fewer operations; wanted")


def test_an_uncertain_speed_is_an_uncertain_share():
    uneven = [2.0, 1.0, 2.0, 4.0, 2.0, 1.0, 4.0, 2.0]
    whole = dict.fromkeys((WHOLE, MASKED, "whole, folded"), [4.0] * 8)
    whole |= {"16": uneven, "16, folded": uneven}
    rows = by_name(pruning.rows(pruned(seconds=whole, fewer={16: 2.0})))
    value, low, high = figures(rows["conv net 32, multiple 16: speed / operations"])
    assert value == pytest.approx(1.0)
    assert low < 0.8 and high > 1.2
    assert rows["conv net 32, 80% masked: speed"].estimate.low == pytest.approx(1)


def test_points_are_lost_seed_by_seed():
    """Seeds differ by a point, what pruning costs by a tenth: pairing takes the first out."""
    row = pruning.rows(pruned())[0]
    assert row.name == "conv net 32: lost by pruning"
    assert row.estimate.value == pytest.approx(0.3)
    assert row.estimate.high - row.estimate.low == pytest.approx(
        2 * 4.303 * 0.2 / math.sqrt(3), 1e-3
    )
    assert row.note.startswith("of 91.0 %; 2.50x fewer operations, multiple 16")


def test_the_fair_baseline_has_a_row_where_it_was_trained():
    fair = {WHOLE: [90.0, 91.0], PRUNED: [90.5, 91.5], TRAINED_ON: [91.0, 92.0]}
    name = "conv net 32: lost to the whole net, trained on"
    assert by_name(pruning.rows(pruned(accuracy=fair)))[name].estimate.value == pytest.approx(0.5)
    assert name not in by_name(pruning.rows(pruned()))


def test_files_are_counted_packed_against_packed():
    rows = by_name(pruning.rows(pruned()))
    assert figures(rows["conv net 32: smaller file, pruned"]) == (2.5, 2.5, 2.5)
    assert figures(rows["conv net 32, 80% masked: smaller file"]) == (3, 3, 3)


@pytest.mark.parametrize("multiple", pruning.MULTIPLES)
def test_half_of_the_operations_is_left_in_channels_of_the_multiple(multiple):
    net = models.convnet(16).to(memory_format=torch.channels_last).eval()
    smaller = pruning.smaller(TINY, net, multiple)
    assert 0.25 < pruning.operations(smaller) / pruning.operations(net) <= 0.5
    convolutions = [m for m in smaller.modules() if isinstance(m, nn.Conv2d)]
    assert all(m.out_channels % multiple == 0 for m in convolutions)


# --- quantization


def quantized(**changes) -> quantization.Images:
    planted = {
        "seconds": {FLOAT: taking(6.0), FOLDED: taking(5.0), INT8: taking(1.5)},
        "accuracy": {FLOAT: [90.0, 92.0, 91.0], INT8: [89.9, 91.8, 91.0]},
        "bytes": {FLOAT: 4000, INT8: 1000},
    }
    return quantization.Images(32, **(planted | changes))


def four_bits(rounded, aware):
    whole = [90.0, 92.0, 91.0]
    few = {"4 bits": rounded, "4 bits, trained on": [89.0] * 3, "4 bits, aware": aware}
    return by_name(
        quantization.image_rows(quantized(accuracy={FLOAT: whole, INT8: whole} | few), "kernels")
    )


def test_int8_has_its_speed_its_loss_and_its_file():
    speed, folded, lost, file = quantization.image_rows(quantized(), "some kernels")
    assert figures(speed) == pytest.approx((4, 4, 4))
    assert speed.note == "some kernels; wanted: at least 3"
    assert figures(folded) == pytest.approx((1.2, 1.2, 1.2))
    assert (lost.estimate.value, lost.estimate.n) == (pytest.approx(0.1), 3)
    assert lost.estimate.low < 0.1 < lost.estimate.high < 0.4
    assert lost.note.startswith("of 91.00 %")
    assert figures(file) == (4, 4, 4)


def test_a_processor_without_kernels_is_named():
    assert quantization.image_rows(quantized(), "")[0].note.startswith("no int8 kernels")


def test_the_share_that_aware_training_wins_back_is_taken_seed_by_seed():
    rows = four_bits([89.0, 88.0, 90.0], [89.5, 91.0, 90.25])
    share = rows["conv net 32, 4 bits, aware: won back"].estimate
    assert (share.value, share.n) == (pytest.approx(100 * (0.5 + 0.75 + 0.25) / 3), 3)
    assert rows["conv net 32, 4 bits: lost"].estimate.value == pytest.approx(2)
    assert rows["conv net 32, 4 bits, trained on: lost"].estimate.value == pytest.approx(2)
    assert rows["conv net 32, 4 bits, aware: lost"].estimate.value == pytest.approx(0.75)
    assert len(rows) == 8


def test_a_seed_that_lost_nothing_has_no_share_to_win_back():
    name = "conv net 32, 4 bits, aware: won back"
    some = four_bits([89.0, 92.0, 91.5], [90.0] * 3)[name]
    assert (some.estimate.value, some.estimate.n) == (100, 1)
    assert four_bits([90.0, 92.0, 91.5], [90.0] * 3)[name].estimate is None


def test_few_bits_are_compared_after_as_much_training():
    nets = [trained.convnet(TINY, 4, seed) for seed in range(2)]
    found = quantization.few_bits(TINY, 4, nets)
    assert list(found) == [
        f"{bits} bits{how}" for bits in (4, 3) for how in ("", ", trained on", ", aware")
    ]
    for name, made in found.items():
        rows = [row for net in made for row in net.head.weight]
        assert len(rows) == 2 * 10
        assert max(len(row.unique()) for row in rows) <= 2 ** int(name[0])
    exact = [net.head.bias for net in found["3 bits"]]
    assert all(torch.equal(bias, net.head.bias) for bias, net in zip(exact, nets, strict=True))
    longer = found["3 bits, trained on"]
    assert not any(torch.equal(a.head.bias, b.head.bias) for a, b in zip(longer, nets, strict=True))


def test_a_transformers_loss_is_paired_by_batch_and_rises_upwards():
    seconds = {FLOAT: taking(2.0), "static": taking(1.0), "weights alone": taking(4.0)}
    losses = {FLOAT: [5.0, 7.0], "static": [5.1, 7.1], "weights alone": [4.9, 6.9]}
    rows = by_name(quantization.text_rows(quantization.Text(256, seconds, losses)))
    assert figures(rows["transformer 256, static: speed"]) == pytest.approx((2, 2, 2))
    assert figures(rows["transformer 256, weights alone: speed"]) == pytest.approx((0.5, 0.5, 0.5))
    assert figures(rows["transformer 256, static: loss"]) == pytest.approx((0.1, 0.1, 0.1))
    assert rows["transformer 256, weights alone: loss"].estimate.value == pytest.approx(-0.1)
    assert rows["transformer 256, static: loss"].note == "more than 6.000"
    assert len(rows) == 4


def test_a_loss_by_batch_is_the_next_tokens():
    torch.manual_seed(0)
    model = models.transformer(30, width=16, depth=1, heads=2, context=8)
    batches = [(torch.randint(30, (n, 8)), torch.randint(30, (n, 8))) for n in (4, 2)]
    expected = [next_token_loss(model(x), y).item() for x, y in batches]
    assert quantization.token_losses(model, batches) == pytest.approx(expected)


# --- all of it, once, as small as it gets


def test_pruning_runs_through_and_times_what_one_would_deploy(monkeypatch):
    def check(variants, inputs, rounds, turns):
        for name, net in variants.items():
            norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
            assert bool(norms) is not name.endswith(", folded")
        assert len(variants) == 4 + len(pruning.MULTIPLES)
        return real(variants, inputs, rounds, turns)

    real = pruning.timed_in_turns
    monkeypatch.setattr(pruning, "timed_in_turns", check)
    monkeypatch.setattr(trained, "QUICK", TINY)
    rows = pruning.run(quick=True)
    assert len(rows) == 9
    assert all(row.estimate is not None and row.estimate.value > 0 for row in rows[2:])


def test_quantization_runs_through(monkeypatch):
    """The transformer's int8 takes long to make, so 8-bit weights stand in for it."""
    real, rounded = quantize.static, quantize.weights

    def static(model, batches):
        images = isinstance(model, models.ConvNet)
        return real(model, batches) if images else rounded(model)

    monkeypatch.setattr(quantize, "static", static)
    monkeypatch.setattr(quantize, "dynamic", lambda model, _: rounded(model))
    monkeypatch.setattr(trained, "QUICK", replace(TINY, widths=(4,), seeds=1))
    monkeypatch.setattr(quantization, "QUICK", quantization.TextScale((8,), 200_000, 1, 2))
    rows = quantization.run(quick=True)
    names = [row.name for row in rows]
    assert len(rows) == len(set(names)) == 18
    measured = by_name(rows)
    assert measured["conv net 4, int8: smaller file"].estimate.value > 1
    assert measured["conv net 4, int8: lost"].estimate.n == 1
    assert abs(measured["transformer 8, static: loss"].estimate.value) < 0.1
