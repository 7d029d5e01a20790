"""Notebook 12: what its results mean."""

from collections.abc import Mapping, Sequence
from math import isinf
from statistics import fmean
from typing import TypeAlias

from labkit.compare import STEP_TIME, Verdict
from labkit.lessons.gradient_aggregation.checks import RESNET18_BYTES
from labkit.lessons.gradient_aggregation.measure import DEALS, NORMS, NormRun, Swept, Way
from labkit.lessons.lesson import Prediction
from labkit.lessons.prose import Prose
from labkit.measure import Estimate, paired_ratio
from labkit.measure.statistics import mean_interval
from labkit.plan.messages import ring_bytes
from labkit.table import Table

NormRuns: TypeAlias = Mapping[str, Mapping[str, NormRun]]
"""{deal: {kind of norm: result}} of one rank."""


def read_messages(
    measured: Mapping[str, Mapping[int, Sequence[float]]], guess: Prediction
) -> Prose:
    """Return what sending in the smallest buckets costs against one message.

    Args:
        measured: see `measure.messages`.
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
    ratios = {n: paired_ratio(ways[baseline].seconds, ways[n].seconds) for n in others}
    verdicts = {n: Verdict(n, baseline, STEP_TIME, ratio) for n, ratio in ratios.items()}
    faster, slower = (
        [name for name, verdict in verdicts.items() if verdict.call == call]
        for call in ("better", "worse")
    )
    lines = []
    if any(isinf(ratio.high) for ratio in ratios.values()):
        lines.append("The times were taken too seldom to be sure: run a longer profile.")
    elif faster:
        lines.append(f"**{_listed(faster)} made the step faster here.**")
    else:
        lines.append("**None is shown to make the step faster here, although all send less.**")
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
        losses: see `measure.low_rank_training`.
    """
    ends = {name: [_end(seed) for seed in seeds] for name, seeds in losses.items()}
    _, feedback, without = ends.values()
    said = f"At the end: {', '.join(f'{name} **{fmean(end):.2f}**' for name, end in ends.items())}."
    gain = mean_interval([b - a for a, b in zip(feedback, without, strict=True)])
    if isinf(gain.high):
        meaning = "One seed proves nothing: run a longer profile."
    elif gain.low > 0:
        meaning = (
            f"Feedback is worth {gain:.2f}. Without it, what rank 2 leaves out of a step is lost. "
            "With it, that is added to the next gradient, and grows until it is among the two "
            "directions that are sent: late, but not lost."
        )
    elif gain.high < 0:
        meaning = f"Feedback makes it worse here, by {-gain.value:.2f}."
    else:
        meaning = f"Whether feedback helps can't be told from these seeds: {gain:.2f}."
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
        first, *others = of_deal
        told = [
            f"{period} steps apart {_cost(of_deal[period], of_deal[first])}, and "
            f"{of_deal[first].sent / of_deal[period].sent:.0f}x fewer bytes"
            for period in others
        ]
        lines.append(f"- **{deal}**, against means after every step: {'; '.join(told)}.")
    shuffled, by_class = (next(iter(swept[deal].values())) for deal in DEALS)
    if _points(by_class.accuracies, shuffled.accuracies).high < 0:
        lines.append(
            f"\nDealt by class, means after every step give {_cost(by_class, shuffled)} than when "
            "shuffled. That is not for want of messages: see batch norm below."
        )
    return Prose("\n".join(lines))


def _cost(result: Swept, baseline: Swept) -> str:
    """Say how many points of accuracy one way loses or gains, seed by seed."""
    points = _points(result.accuracies, baseline.accuracies)
    if isinf(points.high):
        return f"{points.value:+.1f} points (one seed proves nothing)"
    if points.high < 0:
        return f"**{-points.value:.1f} points less** ({-points.high:.1f} to {-points.low:.1f})"
    return (
        f"**{points:.1f} points more**" if points.low > 0 else f"can't tell: {points:+.1f} points"
    )


def _points(accuracies: Sequence[float], baseline: Sequence[float]) -> Estimate:
    return mean_interval([100 * (a - b) for a, b in zip(accuracies, baseline, strict=True)])


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
    return _points(synchronized, plain)


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
        ranks: what `measure.norms` returned on each rank.
        guess: of the points that it gains when classes are dealt apart.
    """
    shuffled, by_class = gains = [_gain(ranks, deal) for deal in DEALS]
    lines = [
        f"- {deal}: synchronized over plain {_verdict(gain)}"
        for deal, gain in zip(DEALS, gains, strict=True)
    ]
    lines.append(f"\n{_small_batches(shuffled)}")
    if _content(ranks) and by_class.low > 0:
        lines.append(
            "\nWith classes dealt apart the plain network's training loss shows nothing: each rank "
            "normalises its own classes and is content. On test images the statistics fit nobody."
        )
    lines.append(
        f"\nA step with synchronized norms takes **{slowdown(ranks):.1fx}** as long here: two "
        "exchanges for each norm, and in each of them the ranks wait for each other."
    )
    lines.append(f"\n{guess.against(by_class)}")
    return Prose("\n".join(lines))


def _verdict(gain: Estimate) -> str:
    points = f"{gain:.1f} points"
    if isinf(gain.high):
        return f"{points}; one seed proves nothing"
    if gain.low > 0:
        return f"**{points} more**"
    return f"**{points}: worse**" if gain.high < 0 else f"**can't tell**: {points}"


def _small_batches(shuffled: Estimate) -> str:
    """Say whether a small batch a rank is enough for plain batch norm to fail."""
    if isinf(shuffled.high):
        return "More seeds would show whether small batches alone make plain batch norm fail."
    if shuffled.low > 0:
        return "**Small batches alone make plain batch norm worse**, also where data is shuffled."
    if shuffled.high < 0:
        return "**Small batches alone do not make plain batch norm fail**: it does better."
    return (
        "**Small batches alone are not shown to make plain batch norm fail**: where data is "
        "shuffled, each rank's few images come from all classes. A loss of up to "
        f"{shuffled.high:.0f} points could hide in the spread of these seeds."
    )


def _content(ranks: Sequence[NormRuns]) -> bool:
    """Say whether the plain network's training loss looks as good, with classes dealt apart."""
    plain, synchronized = (
        fmean(loss for rank in ranks for loss in rank[DEALS[1]][norm].losses) for norm in NORMS
    )
    return plain < synchronized + 0.1
