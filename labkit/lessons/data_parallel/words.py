"""Notebook 11: what its results mean; `ways` says how near the ways come to the ceiling."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

import torch
from torch import Tensor, nn

from labkit.distributed import launch
from labkit.lessons.data_parallel import measure
from labkit.lessons.data_parallel.measure import WARMUP, Optimizers, Span
from labkit.lessons.lesson import Prediction
from labkit.lessons.prose import Prose
from labkit.measure import Estimate, paired_ratio
from labkit.measure.statistics import mean_interval
from labkit.plan.messages import ring_bytes
from labkit.table import Table

SAME = 1e-3  # of the way that the weights went: rounding is far below, another algorithm far above


def nothing(model: nn.Module) -> None:
    """Average nothing."""


def against_one_process(
    optimizers: Optimizers, averages: Mapping[str, tuple[str, Callable[[nn.Module], object]]]
) -> Table:
    """Train in each way on two ranks, and say whether the weights are those of one process.

    Args:
        optimizers: {name: makes one from the parameters}.
        averages: {name: ("gradients" or "weights", what averages them)}.
    """
    alone = launch(
        measure.weights_of, 1, optimizers=optimizers, averages={"": ("gradients", nothing)}
    )[0]
    ranks = launch(measure.weights_of, 2, optimizers=optimizers, averages=averages)
    rows = []
    for way in averages:
        words = [_word([rank[name, way] for rank in ranks], alone[name, ""]) for name in optimizers]
        rows.append((way, *words))
    return Table(("the ranks average", *optimizers), tuple(rows))


def _word(ranks: Sequence[Tensor], alone: Tensor) -> str:
    """Say how the ranks' weights after training compare with those of one process."""
    length = torch.linalg.vector_norm
    if length(ranks[0] - ranks[1]) > SAME * length(alone):
        return "the ranks differ"
    if length(ranks[0] - alone) > SAME * length(alone):
        return "differs from one process"
    return "same as one process"


Trained = tuple[float, int, int]
"""What a rank tells after training: accuracy, bytes sent, steps."""


def read_training(ranks: Sequence[Trained | None], alone: Trained, gradient: int) -> Prose:
    """Return what a training on all ranks reached and sent.

    Args:
        ranks: of each; None if it was stopped.
        alone: of one process with the joined batch.
        gradient: bytes.
    """
    done = [rank for rank in ranks if rank is not None]
    if len(done) < len(ranks):
        return Prose("The training was stopped before its end: run the two cells above again.")
    _, sent, steps = done[0]
    predicted = ring_bytes(gradient, len(done))
    right = "as the arithmetic said" if sent == steps * predicted else "not what arithmetic said"
    accuracies = ", ".join(f"{accuracy:.1%}" for accuracy, *_ in done)
    return Prose(
        f"**{sent / steps / 1e3:,.0f} kB a step from each rank, {right}** "
        f"({predicted / 1e3:,.0f} kB); {sent / 1e6:,.1f} MB in all. The ranks' accuracies are "
        f"{accuracies}: their weights are the same, but each has gathered batch norm's statistics "
        f"from its own images (notebook 12). One process with the joined batch: {alone[0]:.1%}."
    )


def read_timeline(spans: Sequence[Span]) -> Prose:
    """Return how much of the sending happened behind the backward pass."""
    sending = [span for span in spans if span.what == "sending"]
    end = max(span.end for span in spans if span.what == "backward")
    last = max(span.end for span in spans if span.what != "sending")
    begun = sum(span.start < 0.999 * end for span in sending)
    total = _covered(sending)
    return Prose(
        f"The gradient left in {_left(len(sending), begun)}. Some message was on its way for "
        f"{1e3 * total:.1f} ms of a step of {1e3 * last:.1f} ms. A bar holds waiting, too: a "
        "message ends when the *other* rank has come as far. The optimizer starts when the last "
        "message is there."
    )


def _left(messages: int, begun: int) -> str:
    """Say how many messages there were, and how many of them began before backward's end."""
    if messages == 1:
        still = (
            "while this rank still was in its" if begun else "when this rank was through with its"
        )
        return f"1 message, {still} backward pass"
    count = begun or "none"
    return f"{messages} messages, {count} of them while this rank still was in its backward pass"


def _covered(spans: Sequence[Span]) -> float:
    """Return the seconds in which at least one span goes on."""
    total, reached = 0.0, float("-inf")
    for span in sorted(spans, key=lambda span: span.start):
        total += max(0.0, span.end - max(span.start, reached))
        reached = max(reached, span.end)
    return total


def read_scaling(times: Mapping[str, Sequence[float]], ranks: int, guess: Prediction) -> Prose:
    """Return strong and weak scaling, threads against processes, and the prediction.

    Args:
        times: as `measure.time_scaling` returns them.
        ranks: how many there were.
        guess: of how many times faster all processes are than one, for the same images.
    """
    strong = paired_ratio(times["alone, all"], times["processes"])
    weak = paired_ratio(times["alone"], times["processes"])
    threads = paired_ratio(times["alone, all"], times["threads"])
    between = paired_ratio(times["threads"], times["processes"])
    if between.low > 1:
        winner = "Processes beat threads here: a thread team meets after every layer, ranks once."
    elif between.high < 1:
        winner = "Threads beat processes here."
    else:
        winner = "Between threads and processes this measurement can't tell."
    return Prose(
        f"- **Strong scaling**, the same images on {ranks} processes: {strong:.2fx} as fast as one "
        "process with one thread\n"
        f"- **Weak scaling**, as many images for *each*: {weak:.2f} of one process's pace (1 would "
        "be perfect)\n"
        f"- **Threads**, one process with {ranks}: {threads:.2fx} as fast as with one\n"
        f"- **Processes over threads**: {between:.2fx}\n\n"
        f"{winner}\n\n{guess.against(strong)}"
    )


def read_rules(ranks: Sequence[Mapping[str, Mapping[int, float]]], steps: int) -> Prose:
    """Return what each rule for the learning rate costs in accuracy.

    Args:
        ranks: for each rank {rule: {seed: accuracy}}: the small batch, then the large one at the
            same rate, at the scaled rate, and at the scaled rate with warm-up.
        steps: of a training with the large batch.
    """
    rules = {name: {s: a for rank in ranks for s, a in rank[name].items()} for name in ranks[0]}
    first, *_, scaled, warm = rules
    rows = ["| | accuracy | against the small batch |", "|---|---|---|"]
    rows.append(f"| {first} | {fmean(rules[first].values()):.1%} | |")
    lost = {name: _points(rules[name], rules[first]) for name in rules if name != first}
    for name, points in lost.items():
        rows.append(f"| {name} | {fmean(rules[name].values()):.1%} | {points:+.1f} points |")
    warmed = _warmed(_points(rules[warm], rules[scaled]), steps)
    return Prose("\n".join([*rows, "", f"{_rules_verdict(lost)} {warmed}"]))


def _points(accuracies: Mapping[int, float], baseline: Mapping[int, float]) -> Estimate:
    """Return the points of accuracy gained over a baseline, paired by seed."""
    return mean_interval([100 * (accuracies[seed] - baseline[seed]) for seed in baseline])


def _rules_verdict(lost: Mapping[str, Estimate]) -> str:
    same, *scaled = lost.values()
    best = max(scaled, key=lambda estimate: estimate.value)
    if same.high < 0 and best.low > same.high:
        back = min(1.0, 1 - best.value / same.value)
        return (
            "**The same rate is too small for the large batch:** so many times fewer steps, each "
            f"as short as before, do not get as far. A larger rate brings {back:.0%} of it back."
        )
    if best.high < 0:
        return "**The large batch costs accuracy here, whatever the rate.** It takes fewer steps."
    return "**This measurement can't tell the rules apart:** more seeds or epochs would."


def _warmed(gain: Estimate, steps: int) -> str:
    """Say what warm-up does at the scaled rate."""
    if gain.low > 0:
        return f"Warm-up gains {gain:.1f} points: the scaled rate is too wild for the first steps."
    slow = f"of only {steps} steps it gives {round(WARMUP * steps)} to lower rates"
    if gain.high < 0:
        return (
            f"Warm-up makes it worse by {-gain.value:.1f} points: {slow}. The scaled rate has "
            "broken nothing at the start, so there was nothing to save. What warm-up is for, "
            "larger rates and deeper networks, so short a run cannot show."
        )
    return f"Whether warm-up helps can't be told here: {gain:+.1f} points ({slow})."
