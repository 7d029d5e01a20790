"""What notebook 03 works out: which loss scales suit, who races, and what the roof says."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, takewhile

import torch
from torch import Tensor

from labkit.compare import FORWARD_TIME, PEAK_MEMORY, Quantity, Race, Samples
from labkit.compare.record import WARMUP_ROUNDS
from labkit.measure import Ceiling, Standing, predict_seconds
from labkit.measure.gradients import fates
from labkit.training import Recipe
from labkit.training.task import LOSS

BACKWARD_TIME = Quantity.time("backward time", header="ms a backward pass")
SLOWEST = 4
"""A format takes part in the long race if its steps surely take less than this many of fp32."""
SHORT = 12
"""Steps of the race if every 16-bit format has to sit out."""


def safe_scales(magnitudes: Mapping[str, Tensor]) -> list[int]:
    """Return the powers of two that, as a loss scale, keep 99.9 % of each kind.

    None of those makes anything overflow.

    Args:
        magnitudes: of the gradients of each kind; see `labkit.measure.gradients`.
    """
    edges = []  # the size that one in a thousand lies below, and the largest
    for sizes in magnitudes.values():
        sample = sizes[::10]  # sorting takes memory, and a tenth tells as much
        edges.append(torch.stack([sample.kthvalue(1 + len(sample) // 1000).values, sizes.max()]))
    after = [[fates(edge, 2.0**power) for edge in edges] for power in range(41)]
    return [k for k, fate in enumerate(after) if not any(f.zero + f.infinite for f in fate)]


def smallest_loss(losses: Mapping[str, Mapping[int, Tensor]]) -> Samples:
    """Return the trainings whose loss was divided by most, to be compared image by image.

    Args:
        losses: {precision: {k: loss of each test image, after training on loss / 2**k}}; the first
            is the baseline.
    """
    samples = Samples(losses)
    for name, by_power in losses.items():
        samples.add_scores(name, Quantity.of(LOSS), by_power[max(by_power)])
    return samples


def scale_figures(scales: Sequence[float], skipped: Sequence[bool]) -> dict[str, float]:
    """Return how the loss scale moved, for a sentence.

    Args:
        scales: the scale that each step's loss was multiplied by.
        skipped: whether the step changed no weight.
    """
    first = len(list(takewhile(bool, skipped)))
    return {
        "steps": len(scales),
        "skipped": sum(skipped),
        "first": first,
        "lowest": min(scales),
        "doubled": sum(after > before for before, after in pairwise(scales)),
    }


def passes(race: Race) -> Samples:
    """Run a race to its end, and return the times of its forward and backward passes."""
    samples = Samples(race.arms, (FORWARD_TIME, BACKWARD_TIME))
    for round in race:
        if round.number > WARMUP_ROUNDS:
            for name, step in round.steps.items():
                samples.add(name, FORWARD_TIME, step.phases.forward, round=round.number - 1)
                samples.add(name, BACKWARD_TIME, step.phases.backward, round=round.number - 1)
    return samples


def entrants(race: Race, base: Recipe) -> dict[str, Recipe]:
    """Return the arms of the long race: fp32, and each format that surely is not too slow for it.

    If none is, the least slow one races fp32 over a few steps, so that there is a verdict.

    Args:
        race: a short one that is over; its first arm is fp32.
        base: recipe of the long one.
    """
    verdicts = {name: race.verdict(name).within(SLOWEST - 1) for name in list(race.arms)[1:]}
    names = [name for name, verdict in verdicts.items() if verdict.not_worse]
    if not names:
        names = [max(verdicts, key=lambda name: verdicts[name].estimate.value)]
        base = base.but(steps=SHORT)
    return {name: base.but(precision=name) for name in (race.baseline, *names)}


def allowed(standings: Mapping[str, Standing], roof: Ceiling) -> float:
    """Return how many times faster than the first the second step would be, both on the roof."""
    first, second = (
        predict_seconds(standing.flops, standing.bytes, roof, dtype)
        for dtype, standing in list(standings.items())[:2]
    )
    return first / second


def roof_figures(standings: Mapping[str, Standing], roof: Ceiling) -> dict[str, float]:
    """Return, of the second arm over fp32, the speed on the roof and how fast it multiplies."""
    candidate = list(standings)[1]
    peak = roof.peak(candidate) / roof.peak("fp32")
    return {"bound": allowed(standings, roof), "peak": peak}


def kept_for_backward(images: int) -> Quantity:
    """Return the quantity of bytes that a forward pass of so many images keeps."""
    name = f"MiB kept, batch of {images}"
    return replace(PEAK_MEMORY, name=name, header=name, versus="times smaller")
