"""Notebook 15, first half: what its results mean, from grids to the layers of a conv net."""

from collections.abc import Mapping, Sequence
from math import isinf

from torch import Tensor

from labkit.compare import Quantity, Verdict
from labkit.compression.quantize import Int8Limits
from labkit.compression.quantize.affine import grid_of, round_trip
from labkit.compression.quantize.layer_noise import LayerError
from labkit.lessons.lesson import Prediction
from labkit.lessons.prose import Prose
from labkit.lessons.quantization.measure import Quality, channel_decibels
from labkit.lessons.quantization.weights import Times, lost_words
from labkit.measure import paired_ratio
from labkit.table import Table


def grids_table(weight: Tensor, bits: Sequence[int] = (8, 4)) -> Table:
    """Return how loud a channel of a weight (outputs, …) is against its rounding, on each grid."""
    kinds = {
        "affine, per tensor": (False, None),
        "symmetric, per tensor": (True, None),
        "affine, per channel": (False, 0),
        "symmetric, per channel": (True, 0),
    }
    rows = []
    for name, (symmetric, dim) in kinds.items():
        kept = [round_trip(weight, grid_of(weight, b, symmetric, dim)) for b in bits]
        rows.append((name, *(f"{channel_decibels(weight, rounded):.1f} dB" for rounded in kept)))
    head = ("grid", *(f"{b} bits" for b in bits))
    return Table(head, tuple(rows), "Signal to noise, median of the channels.")


def read_grids(weight: Tensor, bits: int = 4) -> Prose:
    """Return what a scale for each channel is worth on this weight."""
    whole, each = (
        channel_decibels(weight, round_trip(weight, grid_of(weight, bits, True, dim)))
        for dim in (None, 0)
    )
    gain = each - whole
    if gain > 0.5:
        meaning = f"as much as **{gain / 6.02:.1f} bits** more"
    else:
        meaning = "next to nothing: its channels reach equally far"
    return Prose(
        f"Each bit more halves the step, which is worth 6 decibels. Scales per channel gain "
        f"{gain:.1f} dB at {bits} bits here: {meaning}. They cost 4 bytes a channel."
    )


def quality_table(qualities: Mapping[str, Quality]) -> Table:
    """Return accuracy, points lost and error of the logits; the first row is the baseline."""
    rows = []
    for number, (name, quality) in enumerate(qualities.items()):
        lost, error = ("", "") if number == 0 else (f"{quality.lost:.2f}", f"{quality.error:.1f} %")
        rows.append((name, f"{quality.accuracy:.2f} %", lost, error))
    head = ("", "correct on test images", "points lost", "distance of the logits")
    return Table(head, tuple(rows), "In brackets: 95 % intervals, paired by image.")


def read_static(qualities: Mapping[str, Quality]) -> Prose:
    """Return which way to find the clipping ranges did best, by logits and by test images."""
    _, *names = qualities
    best = min(names, key=lambda name: qualities[name].error)
    errors = [qualities[name].error for name in names]
    lines = [
        f"Nearest to the float logits: **{best}**, {min(errors):.1f} % away "
        f"(the farthest: {max(errors):.1f} %)."
    ]
    sure = [name for name in names if qualities[name].lost.low > 0]
    if sure:
        worse = ", ".join(f"{name} {lost_words(qualities[name])}" for name in sure)
        lines.append(f"On test images {worse}.")
    else:
        lines.append("On test images no way is worse than fp32 by more than chance explains.")
    if max(errors) < 1.5 * min(errors):
        lines.append("With 8 bits there is room for all; with fewer, the range decides.")
    return Prose(" ".join(lines))


def read_speed(times: Times, limits: Int8Limits, guess: Prediction) -> Prose:
    """Return how much faster int8 is, what the roof allows, and how the guess fared.

    Args:
        times: the first is fp32, the second int8.
        limits: of the same forward pass.
        guess: of how many times faster int8 is.
    """
    baseline, candidate = times
    speed = paired_ratio(times[baseline].seconds, times[candidate].seconds)
    verdict = Verdict(candidate, baseline, Quantity.time("time of a batch"), speed)
    return Prose(f"{verdict}.\n\n{_why(verdict, limits)}\n\n{guess.against(speed)}")


def _why(verdict: Verdict, limits: Int8Limits) -> str:
    """Explain a verdict on int8 by instructions and roof."""
    if not limits.kernels:
        return (
            "**This processor has no int8 instructions that the lowering knows.** So the model "
            "rounds as int8 would and multiplies in float: the answers are right, the file is a "
            "quarter, time is not saved. Where there are such instructions the same file is fast."
        )
    limit = "moving bytes" if limits.moving else "multiplying"
    roof = (
        f"The instructions here ({limits.kernels}) promise {limits.rate:.0f} times the products a "
        f"second, and a quarter of the bytes is moved. By the roof fp32 needs "
        f"{1e3 * limits.fp32:.1f} ms at least, int8 {1e3 * limits.int8:.1f} ms, and its limit is "
        f"{limit}: **{limits.speed:.1f}x at best**."
    )
    if isinf(verdict.estimate.high):
        return f"{roof} Measured too few times to be sure: run a longer profile."
    return f"{roof} {_against_roof(verdict, limits)}"


def _against_roof(verdict: Verdict, limits: Int8Limits) -> str:
    if verdict.call not in ("better", "worse"):
        return "Measured is no difference: what the products save is spent around them."
    if verdict.call == "worse":
        return "Measured is a loss: rounding inputs and calling kernels costs more than it saves."
    if verdict.estimate.value < 0.8 * limits.speed:
        return (
            "Measured is less: small layers do not fill the units, and each one rounds its output."
        )
    if verdict.estimate.value > 1.25 * limits.speed:
        return (
            "Measured is more: the lowered model also folds batch norm and ReLU into its "
            "convolutions, which this bound for eager layers does not know."
        )
    return "Measured is about that."


def read_file(predicted: int, stored: int, header: int, whole: int, equal: bool) -> Prose:
    """Return how the file compares with its prediction, and whether it gives the model back.

    Args:
        predicted: bytes of the tensors.
        stored, header: bytes of the quantized file, and of its header alone.
        whole: bytes of the float file.
        equal: whether the loaded model gives the same outputs, bit for bit.
    """
    off = stored - header - predicted
    fits = "to the byte" if off == 0 else f"{off:+,} bytes off"
    same = "the same outputs, bit for bit" if equal else "**other outputs than before**"
    return Prose(
        f"Tensors: predicted {predicted:,} bytes, stored **{stored - header:,}** ({fits}). With "
        f"{header:,} bytes of names, shapes and ranges the file is **{whole / stored:.2f} times "
        f"smaller** than fp32's ({stored / 1e3:,.0f} instead of {whole / 1e3:,.0f} kB). Loaded "
        f"again, the model gives {same}."
    )


def read_layers(
    errors: Sequence[LayerError],
    names: Sequence[str],
    qualities: Mapping[str, Quality],
    times: Times,
) -> Prose:
    """Return which layers suffer, and what it brings and costs to leave them in float.

    Args:
        errors: of all layers.
        names: those that were left in float.
        qualities: of fp32, of int8, and of int8 with these layers in float.
        times: of the same three, in this order.
    """
    worst = min(errors, key=lambda error: error.both)
    part = "input" if worst.activations < worst.weights else "weights"
    _, before, after = qualities.values()
    _, all_int8, kept = times.values()
    speed = paired_ratio(all_int8.seconds, kept.seconds)
    gain = before.error - after.error
    lines = [
        f"Loudest noise: **{worst.name}**, {worst.both:.0f} dB, most of it from its {part}. "
        f"With {' and '.join(names)} in float the logits are {after.error:.2f} % away instead of "
        f"{before.error:.2f} %; the model {lost_words(after)}.",
        f"It runs at {speed:.2fx} the speed of all in int8.",
    ]
    if speed.high < 0.98:
        lines.append(
            "Around a float layer each tensor is turned to floats and back, in extra passes."
        )
    if gain < 0.05 * before.error:
        lines.append("Not worth it here: the noise comes from many layers.")
    elif speed.high < 0.98:
        lines.append("Whether that is worth its time depends on how much accuracy is at stake.")
    else:
        lines.append("A gain that costs no time that can be shown.")
    return Prose(" ".join(lines))
