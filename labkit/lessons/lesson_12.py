"""Notebook 12: what its results mean; the checks of its exercises stand in `exercises_12`."""

from collections.abc import Mapping, Sequence
from math import isinf
from statistics import fmean
from typing import TypeAlias

from labkit.distributed.ring import ring_bytes
from labkit.lessons.exercises_12 import NORMS_OF_RESNET18 as NORMS_OF_RESNET18
from labkit.lessons.exercises_12 import RESNET18_BYTES as RESNET18_BYTES
from labkit.lessons.exercises_12 import break_even_kib as break_even_kib
from labkit.lessons.exercises_12 import exchanges as exchanges
from labkit.lessons.exercises_12 import low_rank_ratio as low_rank_ratio
from labkit.lessons.exercises_12 import resnet_megabytes as resnet_megabytes
from labkit.lessons.lesson import Prediction
from labkit.lessons.prose import Prose
from labkit.lessons.ranks_12 import DEALS, NORMS, NormRun, Swept, Way
from labkit.measure import Estimate, paired_ratio
from labkit.measure.statistics import mean_interval
from labkit.table import Table

NormRuns: TypeAlias = Mapping[str, Mapping[str, NormRun]]
"""{deal: {kind of norm: result}} of one rank."""


def read_messages(
    measured: Mapping[str, Mapping[int, Sequence[float]]], guess: Prediction
) -> Prose:
    """Return what sending in the smallest buckets costs against one message.

    Args:
        measured: see `ranks_12.messages`.
        guess: of how many times longer the smallest buckets take.
    """
    times = measured["in buckets"]
    small, large = min(times), max(times)
    ratio = paired_ratio(times[small], times[large])
    if isinf(ratio.high):
        meaning = "Measured too few times to be sure: run a longer profile."
    elif ratio.low > 1:
        meaning = "Every message costs its latency: gather gradients before you send them."
    else:
        meaning = "No gain from gathering can be shown here: the noise is larger than the latency."
    return Prose(
        f"In buckets of {small // 1024} KiB the same bytes took **{ratio:.1fx}** as long as in "
        f"one message. {meaning}\n\n{guess.against(ratio)}"
    )


def compression_table(ways: Mapping[str, Way]) -> Table:
    """Return bytes, error and time of each way to average gradients; the first is the baseline."""
    baseline = next(iter(ways.values()))
    rows = tuple(
        (
            name,
            f"{way.sent / 1000:,.0f}",
            f"{baseline.sent / way.sent:.1f}x",
            f"{way.error:.1g}",
            "" if way is baseline else f"{paired_ratio(baseline.seconds, way.seconds):.2fx}",
        )
        for name, way in ways.items()
    )
    head = ("", "kB a rank and step", "fewer bytes", "relative error", "step, times faster")
    return Table(head, rows)


def read_compression(ways: Mapping[str, Way]) -> Prose:
    """Return which way made the step faster here, and what its error means."""
    baseline, *others = ways
    faster, slower = [], []
    for name in others:
        ratio = paired_ratio(ways[baseline].seconds, ways[name].seconds)
        if ratio.low > 1:
            faster.append(name)
        elif ratio.high < 1:
            slower.append(name)
    lines = []
    if isinf(ratio.high):
        lines.append("The times were taken too seldom to be sure: run a longer profile.")
    elif faster:
        lines.append(f"**{_listed(faster)} made the step faster here.**")
    else:
        lines.append("**None made the step faster here, although all send less.**")
    if slower:
        lines.append(f"Slower: {_listed(slower)}; the computing costs more than the bytes save.")
    lines.append(
        "Between two processes of one machine bytes are cheap. Over a network of 1 Gbit/s the fp32 "
        f"gradient of this small network needs {_gigabit_ms(ways[baseline].sent):.1f} ms a step, "
        f"that of ResNet-18 {_gigabit_ms(ring_bytes(RESNET18_BYTES, 2)):.0f} ms."
    )
    rounded, low_rank = (
        max(way.error for name, way in ways.items() if name.startswith(kinds))
        for kinds in (("bf16", "fp16"), "PowerSGD")
    )
    lines.append(
        f"Rounding to 16 bits moves the gradient by {rounded:.1%} of its length at most, a low "
        f"rank by up to {low_rank:.0%}."
    )
    return Prose(" ".join(lines))


def _gigabit_ms(size: float) -> float:
    """Milliseconds that a 1 Gbit/s network needs for so many bytes."""
    return 8 * size / 1e9 * 1e3


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def read_feedback(losses: Mapping[str, Sequence[Sequence[float]]]) -> Prose:
    """Return what error feedback is worth: losses over the last tenth of the steps.

    Args:
        losses: see `ranks_12.low_rank_training`.
    """
    ends = {name: fmean(map(_end, seeds)) for name, seeds in losses.items()}
    whole, feedback, without = ends.values()
    said = f"At the end: {', '.join(f'{name} **{loss:.2f}**' for name, loss in ends.items())}."
    if without > feedback + 0.02 and without - whole > feedback - whole:
        meaning = (
            "Without feedback, what rank 2 leaves out of a step is lost. With it, that is added to "
            "the next gradient, and grows until it is among the two directions that are sent: "
            "late, but not lost."
        )
    else:
        meaning = "In so short a training feedback shows no gain: run a longer profile."
    return Prose(f"{said} {meaning}")


def _end(losses: Sequence[float]) -> float:
    return fmean(losses[-max(1, len(losses) // 10) :])


def periods_table(swept: Mapping[str, Mapping[int, Swept]]) -> Table:
    """Return bytes and accuracy for each period and deal."""
    head = ("deal of the images", "steps apart", "MB a rank", "correct on test images")
    rows = tuple(
        (deal, str(period), f"{result.sent / 1e6:.2f}", _percent(result.accuracies))
        for deal, of_deal in swept.items()
        for period, result in of_deal.items()
    )
    return Table(head, rows)


def _percent(values: Sequence[float]) -> str:
    each = ", ".join(f"{100 * value:.1f}" for value in values)
    return f"{100 * fmean(values):.1f} %" + (f"  ({each})" if len(values) > 1 else "")


def read_periods(swept: Mapping[str, Mapping[int, Swept]]) -> Prose:
    """Return how far the ranks may drift apart before it costs accuracy, on each deal."""
    lines = []
    for deal, of_deal in swept.items():
        every_step, *others = of_deal
        base = fmean(of_deal[every_step].accuracies)
        good = [h for h in others if fmean(of_deal[h].accuracies) > base - 0.03]
        bad = [h for h in others if h not in good]
        text = f"- **{deal}**: "
        if good:
            saved = of_deal[every_step].sent / of_deal[max(good)].sent
            text += f"{max(good)} steps apart cost at most 3 points and save {saved:.0f}x the bytes"
        if bad:
            lost = 100 * (base - fmean(of_deal[max(bad)].accuracies))
            text += ("; " if good else "") + f"{max(bad)} steps apart cost {lost:.0f} points"
        lines.append(f"{text}.")
    shuffled, by_class = (fmean(next(iter(swept[deal].values())).accuracies) for deal in DEALS)
    if shuffled > by_class + 0.03:
        lines.append(
            f"\nDealt by class, means after every step cost {100 * (shuffled - by_class):.0f} "
            "points. That is not for want of messages: see batch norm below."
        )
    return Prose("\n".join(lines))


def by_norm(ranks: Sequence[NormRuns]) -> dict[str, dict[str, list[float]]]:
    """Return {deal: {kind of norm: accuracy for each seed}}, the mean over the ranks' networks."""
    runs = {d: {n: [rank[d][n].accuracies for rank in ranks] for n in NORMS} for d in DEALS}
    return {
        deal: {norm: list(map(fmean, zip(*each, strict=True))) for norm, each in of_deal.items()}
        for deal, of_deal in runs.items()
    }


def norms_table(ranks: Sequence[NormRuns]) -> Table:
    """Return loss and accuracy of each norm on each deal, over all ranks."""
    head = ("deal of the images", "batch norm", "training loss", "correct on test images")
    rows = []
    for deal, of_deal in by_norm(ranks).items():
        for norm, accuracies in of_deal.items():
            loss = fmean(loss for rank in ranks for loss in rank[deal][norm].losses)
            rows.append((deal, norm, f"{loss:.2f}", _percent(accuracies)))
    return Table(head, tuple(rows))


def figures(ranks: Sequence[NormRuns]) -> dict[str, tuple[Estimate, str]]:
    """Return points gained by synchronizing on each deal, and the step's time over plain."""
    result = {f"{deal}: accuracy gained": (_gain(ranks, deal), "points") for deal in DEALS}
    return {**result, "step time": (slowdown(ranks), "x")}


def _gain(ranks: Sequence[NormRuns], deal: str) -> Estimate:
    plain, synchronized = by_norm(ranks)[deal].values()
    return mean_interval([100 * (s - p) for s, p in zip(synchronized, plain, strict=True)])


def slowdown(ranks: Sequence[NormRuns]) -> Estimate:
    """Return how many times longer a step with synchronized norms takes (ranks go in step)."""
    plain, synchronized = (
        [second for of_deal in ranks[0].values() for second in of_deal[norm].seconds]
        for norm in NORMS
    )
    return paired_ratio(synchronized, plain)


def read_norms(ranks: Sequence[NormRuns], guess: Prediction) -> Prose:
    """Return when synchronized batch norm was worth its time.

    Args:
        ranks: what `ranks_12.norms` returned on each rank.
        guess: of the points that it gains when classes are dealt apart.
    """
    lines = []
    for deal in DEALS:
        gain = _gain(ranks, deal)
        points = f"{gain:.1f} points"
        if isinf(gain.high):
            verdict = f"{points}; one seed proves nothing"
        elif gain.low > 0:
            verdict = f"**{points} more**"
        elif gain.high < 0:
            verdict = f"**{points}: worse**"
        else:
            verdict = f"**can't tell**: {points}"
        lines.append(f"- {deal}: synchronized over plain {verdict}")
    plain, synchronized = (fmean(run.losses) for run in ranks[0][DEALS[1]].values())
    if plain < synchronized + 0.1 and _gain(ranks, DEALS[1]).low > 0:
        lines.append(
            "\nWith classes dealt apart the plain network's training loss shows nothing: each rank "
            "normalises its own classes and is content. On test images the statistics fit nobody."
        )
    lines.append(
        f"\nA step with synchronized norms takes **{slowdown(ranks):.1fx}** as long here: two "
        "exchanges for each norm, and in each of them the ranks wait for each other."
    )
    lines.append(f"\n{guess.against(_gain(ranks, DEALS[1]))}")
    return Prose("\n".join(lines))
