"""Notebook 01: what its results mean."""

import math
from collections.abc import Mapping, Sequence
from statistics import median

from labkit import units
from labkit.compare import Quantity, Race, Samples, Verdict
from labkit.lessons.lesson import Prediction
from labkit.lessons.prose import Prose, three_calls
from labkit.lessons.training_loop.measure import shares
from labkit.measure import Timing, median_interval
from labkit.training import Phases


def read_phases(phases: Sequence[Phases], counted: float, guess: Prediction) -> Prose:
    """Return where the time went, against the count of operations and against a prediction.

    Args:
        phases: of each step.
        counted: operations of the backward pass / those of the forward pass.
        guess: the backward pass's share in percent.
    """
    part = shares(phases)
    measured = median_interval([step.backward / step.forward for step in phases])
    percent = median_interval([100 * step.backward / sum(step) for step in phases])
    largest = max(part, key=lambda name: part[name])
    if measured.value < 0.9 * counted:
        gap = (
            "The time grows less than the count: normalizing, activations and calling each layer "
            "take time too, hold no product of matrices, and need not double."
        )
    elif measured.value > 1.1 * counted:
        gap = "The backward pass is slower than its count: it does fewer operations a second."
    else:
        gap = "The count explains the time."
    listed = ", ".join(f"{name} {share:.0%}" for name, share in part.items())
    return Prose(
        f"**Of the time of a step: {listed}.** The largest part is {largest}: look there first."
        f"\n\nThe backward pass takes {measured:.2fx} the time of the forward pass, and "
        f"{counted:.2f}x the operations. {gap}\n\n{guess.against(percent)}"
    )


def read_race(race: Race, optimizer_share: float, guess: Prediction) -> Prose:
    """Return what the optimizers' race says of Amdahl's law, time and accuracy.

    Args:
        race: the baseline is SGD, the other arm AdamW.
        optimizer_share: SGD's share of a step's time, 0 to 1.
        guess: how many times faster the step is with AdamW.
    """
    verdict = race.verdict("AdamW")
    ratio = verdict.estimate
    # 1 / ratio = (1 - share) + factor * share, solved for the factor.
    factor, low, high = (
        max(0.0, 1 + (1 / r - 1) / optimizer_share) if r > 0 else math.inf
        for r in (ratio.value, ratio.high, ratio.low)
    )
    between = f" ({low:.1f} to {high:.1f})" if math.isfinite(ratio.high) else ""
    time = {
        "better": "AdamW's step is shorter here, so its part cannot be the dearer one.",
        "worse": "The step is longer, but see by how little for the change in that part.",
        "can't tell": "The whole step hides the change: a small part, doubled, stays small.",
    }[three_calls(verdict)]
    accuracy = race.verdict("AdamW", on="accuracy")
    meaning = {
        "better": "That is worth more than the time of its step.",
        "worse": "So its step has to be judged by that first.",
        "can't tell": "Neither has the edge after these few steps and seeds.",
    }[three_calls(accuracy)]
    return Prose(
        f"**{verdict}**\n\nThe optimizer took {optimizer_share:.1%} of the SGD step. Twice that "
        f"work would give {1 / (1 + optimizer_share):.3f}x; the ratio above means about "
        f"{factor:.1f}{between} times that work. {time}\n\n**{accuracy}.** {meaning}\n\n"
        f"{guess.against(ratio)}"
    )


def read_batches(taken: Mapping[int, Sequence[Phases]]) -> str:
    """Return the sentence under the knob: images a second, and the fixed cost of a step."""
    seconds = {size: median(map(sum, phases)) for size, phases in sorted(taken.items())}
    small, large = seconds
    # Two points make a line: seconds = fixed + size * each.
    each = (seconds[large] - seconds[small]) / (large - small)
    fixed = seconds[small] - small * each
    rates = " and ".join(f"{size / s:,.0f} with {size}" for size, s in seconds.items())
    if fixed <= 0:
        return f"Images a second: {rates}. Between these two sizes no fixed cost shows."
    return (
        f"Images a second: {rates}. That fits a fixed cost of {units.duration(fixed)} a step: "
        f"{fixed / seconds[small]:.0%} of a step of {small} images, "
        f"{fixed / seconds[large]:.0%} of one of {large}."
    )


def read_modes(times: Mapping[str, Timing], peaks: Mapping[str, int]) -> Prose:
    """Return a table of the gradient modes, the first being the one with gradients recorded."""
    first, *others = times
    taken = {name: units.duration(timing.median) for name, timing in times.items()}
    peak = {name: units.size(bytes, binary=True) for name, bytes in peaks.items()}
    rows = [f"| {first} | {taken[first]} | 1 | {peak[first]} |"]
    verdicts = {name: _verdict(times, name, first, "forward time") for name in others}
    for name, verdict in verdicts.items():
        rows.append(f"| {name} | {taken[name]} | {verdict.estimate:.2fx} | {peak[name]} |")
    smallest = min(peaks[name] for name in others)
    if peaks[first] > 1.05 * smallest:
        memory = (
            f"Recording needs {peaks[first] / smallest:.1f} times the memory: it keeps every "
            "layer's input until the backward pass. Without it each is freed at once."
        )
    else:
        memory = "Recording keeps no memory that shows here."
    faster = [name for name, verdict in verdicts.items() if verdict.call == "better"]
    if faster:
        time = f"Faster here: {' and '.join(faster)}."
    else:
        time = "Neither is faster here beyond doubt: the gain is memory."
    head = "| gradients | forward pass | speed (95 %) | peak memory |\n|---|---|---|---|\n"
    return Prose(head + "\n".join(rows) + f"\n\n**{time}** {memory}")


def read_item(times: Mapping[str, Timing], device: str) -> Prose:
    """Return what reading the loss costs on `device` ("cpu", "cuda")."""
    verdict = _verdict(times, "read", "not read", "step time")
    meaning = {
        "better": "Reading cannot make a step shorter, so something else on this machine did: "
        "run the cell again.",
        "worse": "Here reading has its price.",
        "can't tell": "No cost of reading shows here.",
    }[three_calls(verdict)]
    why = (
        "A CPU has computed the number before the next line runs: reading it is a look into memory."
        if device == "cpu"
        else "An accelerator works behind Python's back: each read waits until it has caught up, "
        "and it then idles until the next orders come."
    )
    return Prose(f"**{verdict}.** {meaning} {why}")


def read_weights_only(whole: Sequence[float], forgetful: Sequence[float]) -> Prose:
    """Return how far the losses of a resume from the weights alone are off.

    Args:
        whole: losses of the uninterrupted run.
        forgetful: losses after the resume, as many as are left.
    """
    gaps = [abs(a - b) for a, b in zip(forgetful, whole[-len(forgetful) :], strict=True)]
    if not any(gaps):
        return Prose("The losses are the same: nothing but the weights mattered here.")
    mean = sum(gaps) / len(gaps)
    return Prose(
        f"**With the weights alone, {sum(g > 0 for g in gaps)} of {len(gaps)} losses differ**, by "
        f"{mean:.2f} on average and {max(gaps):.2f} at most. It trains, and nothing warns you: "
        "momentum starts at zero, the schedule at its beginning, and the data are dealt anew."
    )


def read_save(times: Mapping[str, Timing]) -> Prose:
    """Return how often to save, from the times of "save" and "step"."""
    save, step = times["save"].median, times["step"].median
    every = max(1, math.ceil(100 * save / step))
    young = math.sqrt(2 * save * 24 * 3600)
    return Prose(
        f"A save takes {units.duration(save)}, a step {units.duration(step)}: **one save in "
        f"{every} steps costs at most 1 % of the time.** Young's rule balances that cost against "
        "the work that a failure destroys. The best pause between two saves is √(2 · save · time "
        f"between failures): with one failure a day, {units.duration(young)}."
    )


def _verdict(times: Mapping[str, Timing], candidate: str, baseline: str, on: str) -> Verdict:
    return Samples.of_timings(times, Quantity.time(on)).verdict(candidate, baseline)
