"""Notebook 03: what its results mean."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median

import torch
from torch import Tensor

from labkit.compare import Race, Verdict
from labkit.lessons.lesson import Prediction
from labkit.lessons.mixed_precision.measure import allowed, quick_enough
from labkit.lessons.prose import Prose
from labkit.measure import Ceiling, Standing
from labkit.measure.gradients import fates
from labkit.training import Step

BROKEN = 0.15  # a loss this much higher than fp32's did not train as well


def read_gradients(magnitudes: Mapping[str, Tensor]) -> Prose:
    """Return what fp16 does to the gradients as they are, and which loss scales would suit."""
    as_they_are = {name: fates(sizes) for name, sizes in magnitudes.items()}
    worst = max(as_they_are, key=lambda name: as_they_are[name].zero)
    lost, coarse = as_they_are[worst].zero, as_they_are[worst].subnormal
    if lost > 0.5:
        meaning = "Most of what the layers should hear from each other would be silence."
    elif lost > 0.01:
        meaning = "Training may well survive that, but nobody promises it."
    else:
        meaning = "That alone would hurt nobody."
    edges = []  # the number that one in a thousand lies below, and the largest
    for sizes in magnitudes.values():
        sample = sizes[::10]  # sorting takes memory, and a tenth tells as much
        edges.append(torch.stack([sample.kthvalue(1 + len(sample) // 1000).values, sizes.max()]))
    powers = [power for power in range(41) if all(_fits(edge, 2.0**power) for edge in edges)]
    if powers:
        scales = (
            f"Loss scales from `2**{powers[0]}` to `2**{powers[-1]}` keep 99.9 % of both kinds "
            "from becoming 0 and overflow nowhere: a wide target."
        )
    else:
        scales = "No loss scale saves 99.9 % of both kinds without an overflow."
    return Prose(
        f"Without scaling, fp16 turns **{lost:.1%}** of the gradients of {worst} into 0; another "
        f"**{coarse:.0%}** are subnormal, that is, they keep only some of their bits. {meaning} "
        f"{scales}"
    )


def _fits(sizes: Tensor, scale: float) -> bool:
    shares = fates(sizes, scale)
    return shares.zero == 0 == shares.infinite


def read_small_losses(sweep: Mapping[str, Mapping[int, float]]) -> Prose:
    """Return which precision stands a loss divided by which power of two.

    Args:
        sweep: {precision: {k: loss at the end, for a training on loss / 2**k}}; it has "fp32".
    """
    plain = sweep["fp32"]
    lines = []
    if len(set(plain.values())) == 1:
        lines.append(
            "- **fp32**: the same loss for every k, to the last bit. A power of two only moves "
            "the exponent, so the mathematics did not change."
        )
    for name, losses in sweep.items():
        if name == "fp32":
            continue
        broken = [k for k, loss in losses.items() if not loss < plain[k] + BROKEN]
        if broken:
            k = max(losses)
            lines.append(
                f"- **{name}**: fails from k = {broken[0]} on. At k = {k} its loss is "
                f"{losses[k]:.2f}, that of fp32 {plain[k]:.2f}."
            )
        else:
            lines.append(f"- **{name}**: trains as well as fp32 at every k.")
    return Prose("\n".join(lines))


def read_scale(scales: Sequence[float], skipped: Sequence[bool]) -> Prose:
    """Return how the loss scale moved.

    Args:
        scales: the scale that each step's loss was multiplied by.
        skipped: whether the step changed no weight.
    """
    if all(skipped):
        return Prose("Every step overflowed: the scale was still on its way down at the end.")
    first = skipped.index(False)
    later = sum(skipped[first:])
    doubled = sum(after > before for before, after in pairwise(scales))
    return Prose(
        f"**{first} steps were left out** before a scale of {scales[first]:,.0f} was low enough: "
        f"they changed no weight. After that {later} more were, where gradients grew or the scale "
        f"had doubled too far; it doubled {doubled} times. Over a long training with the default "
        "interval a few lost steps do not matter."
    )


def read_sprint(race: Race, phases: Mapping[str, Sequence[Step]]) -> Prose:
    """Return what a step costs in each format, and which of them can take part in a long race.

    Args:
        race: a finished short one; the first arm is fp32.
        phases: {arm: its steps}.
    """
    lines = []
    for name, steps in phases.items():
        forward, backward = (
            1e3 * median(getattr(step.phases, part) for step in steps[3:])
            for part in ("forward", "backward")
        )
        lines.append(f"- **{name}**: forward {forward:.1f} ms, backward {backward:.1f} ms")
    out = [name for name in race.arms if name not in quick_enough(race)]
    if out:
        verdicts = "; ".join(str(race.verdict(name)) for name in out)
        lines.append(
            f"\n{verdicts}. Support for a format is a matter of every single kernel: compare "
            "forward with backward. One kernel that exists only as a slow reference sets the pace, "
            f"and nobody warns you. So {' and '.join(out)} cannot run the long race here."
        )
    else:
        lines.append("\nNo format falls far behind: all can run the long race here.")
    return Prose("\n".join(lines))


def read_standings(standings: Mapping[str, Standing]) -> Prose:
    """Return what a step of each format computes and moves, and which of the two is its limit."""
    lines = []
    for name, standing in standings.items():
        limit = {"memory": "moving numbers", "compute": "multiplying"}[standing.bound]
        lines.append(
            f"- **{name}**: {standing.flops / 1e9:.2f} GFLOP and {standing.bytes / 1e6:.0f} MB "
            f"moved in a step. Under its roof the limit is {limit}."
        )
    return Prose("\n".join(lines))


def read_race(
    race: Race, guess: Prediction, standings: Mapping[str, Standing], roof: Ceiling
) -> Prose:
    """Return the verdicts of the long race and what they mean.

    Args:
        race: the first arm is fp32.
        guess: of how many times faster the second arm is.
        standings: of the arms, in the order of the race.
        roof: what the standings were placed under.
    """
    candidate = list(race.arms)[1]
    if not race.ratios(candidate):
        return Prose("Nothing was timed yet: run the race again and let it do a few steps.")
    lines = []
    for name in list(race.arms)[1:]:
        for on in ("step time", "accuracy", "time to target", "peak memory"):
            lines.append(f"- {race.verdict(name, on=on)}")
    verdict = race.verdict(candidate)
    why = _why(verdict, allowed(standings, roof), roof.peak(candidate) / roof.peak("fp32"))
    return Prose("\n".join([*lines, "", why, "", guess.against(verdict.estimate)]))


def _why(verdict: Verdict, bound: float, peak: float) -> str:
    """Explain a verdict by what the roof allows and by how fast the format is multiplied."""
    name, value = verdict.candidate, verdict.estimate.value
    if verdict.call not in ("better", "worse"):
        return "**No difference in time that this race can show.** Then memory decides."
    if verdict.call == "worse" and peak < 1:
        return (
            f"**{name} is slower here, and the roof says why:** this machine multiplies {name} at "
            f"{peak:.2f} times the speed of fp32. Half the bytes do not make up for that."
        )
    if verdict.call == "worse":
        return (
            f"**{name} is slower here, and multiplying is not why** ({peak:.1f} times fp32's speed "
            "under the roof): converting to and fro costs more than half the bytes save."
        )
    if value < 0.9 * bound:
        return (
            f"**{name} is faster, by less than the roof allows ({bound:.2f}x).** The roof knows "
            "multiplying and moving only. The optimizer, the sums and the calls themselves cost "
            "what they did before, and converting costs extra."
        )
    return f"**{name} is faster, and gains what the roof allows ({bound:.2f}x), or nearly.**"


def read_memory(saved: Mapping[int, Mapping[str, int]]) -> Prose:
    """Return what activations take in each precision.

    Args:
        saved: {images in the batch: {precision: bytes kept for the backward pass}}; both sizes of
            batch have "fp32".
    """
    lines = []
    for images, kept in saved.items():
        listed = [
            f"{n} {size / 2**20:.2f} MiB ({size / kept['fp32']:.0%})" for n, size in kept.items()
        ]
        lines.append(f"- **batch of {images}**: {', '.join(listed)}")
    small, large = (saved[n]["bf16"] / saved[n]["fp32"] for n in (min(saved), max(saved)))
    if small > 1.1 * large:
        lines.append(
            "\nThe 16-bit copies of the weights count too, and do not grow with the batch: the "
            "larger the batch, the nearer to half."
        )
    return Prose("\n".join(lines))
