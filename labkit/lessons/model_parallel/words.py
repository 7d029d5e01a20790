"""Notebook 13: what its results mean."""

from collections.abc import Mapping, Sequence
from math import isnan, nan
from statistics import fmean

import torch
from torch import Tensor

from labkit import units
from labkit.compare import STEP_TIME, Verdict
from labkit.lessons.lesson import Prediction
from labkit.lessons.prose import Prose
from labkit.measure import Estimate, paired_ratio
from labkit.plan.memory import StateBytes, zero_bytes
from labkit.plan.pipeline_schedules import Block, bubble, idle
from labkit.table import Table

TOLERANCE = 1e-5


KINDS = ("weights", "gradients", "optimizer")


Gradients = Mapping[str, Tensor]


Result = tuple[float, Gradients]


Trained = tuple[Sequence[float], StateBytes]


Raced = tuple[Mapping[str, Sequence[float]], Mapping[str, Sequence[float]]]


def joined(results: Sequence[Result]) -> Result:
    """Return the loss, and the gradients of all stages of a pipeline as of one model."""
    return results[0][0], {name: g for _, mine in results for name, g in mine.items()}


def equal(result: Result, expected: Result) -> bool:
    """Say whether loss and gradients are equal to 1e-5, relative to the loss or largest gradient.

    Args:
        result, expected: (loss, {name: gradient}).
    """
    (loss, gradients), (right_loss, right) = result, expected
    bound = TOLERANCE * max(float(g.abs().max()) for g in right.values())
    return (
        abs(loss - right_loss) <= TOLERANCE * abs(right_loss)
        and gradients.keys() == right.keys()
        and all(gradients[n].shape == g.shape for n, g in right.items())
        and all(float((gradients[n] - g).abs().max()) <= bound for n, g in right.items())
    )


def same_weights(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Say whether two {name: weight} are the same to the bit."""
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def same_losses(results: Sequence[Trained], expected: Sequence[Trained]) -> bool:
    """Say whether the mean of the ranks' losses is equal to 1e-5 in each step.

    Args:
        results, expected: for each rank (loss of each step, bytes held).
    """
    means = (_over_ranks([losses for losses, _ in ranks]) for ranks in (results, expected))
    return all(abs(a - b) <= TOLERANCE * abs(b) for a, b in zip(*means, strict=True))


def _over_ranks(losses: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean over ranks; one that sat idle has NaN and does not count."""
    steps = ([x for x in step if not isnan(x)] for step in zip(*losses, strict=True))
    return [fmean(step) if step else nan for step in steps]


def read_timelines(measured: Mapping[str, Sequence[Block]], stages: int) -> Prose:
    """Return the idle share of each measured schedule beside the formula's.

    Args:
        measured: {name: blocks of a step}.
        stages: of the pipeline.
    """
    lines, found = [], []
    for name, blocks in measured.items():
        count = 1 + max(block.microbatch for block in blocks)
        share, formula = idle(blocks), bubble(stages, count)
        found.append((count, share, formula))
        lines.append(f"- **{name}**: {share:.0%} idle; the formula says {formula:.0%}")
    shares = [share for _, share, _ in sorted(found, reverse=True)]
    said = (
        "The fewer microbatches, the more is idle. "
        if shares == sorted(set(shares))
        else "Fewer microbatches are not always more idle here: steps differ by more than that. "
    )
    if any(count == 1 for count, *_ in found):
        said += "With one microbatch it is no pipeline: while one rank works, the other waits. "
    if any(share > formula + 0.02 for _, share, formula in found):
        said += (
            "What is idle beyond the formula are messages, stages that are not equally dear, and "
            "what else runs on this machine."
        )
    return Prose("\n".join(lines) + f"\n\n{said.strip()}")


def bytes_table(
    parameters: int, ranks: int, by_hand: Sequence[Sequence[Trained]], by_torch: Sequence[Trained]
) -> Table:
    """Return what the first rank held in each stage of ZeRO, beside the formula.

    Args:
        parameters: of the whole model.
        ranks: that share it.
        by_hand: results of measure.zero, for the stages from 0 on.
        by_torch: results of measure.by_fully_shard, stage 3.
    """
    named = {"data parallel": (0, by_hand[0])}
    named |= {f"ZeRO-{stage}": (stage, r) for stage, r in enumerate(by_hand) if stage}
    named["fully_shard"] = (3, by_torch)
    rows = []
    for name, (stage, results) in named.items():
        predicted, held = zero_bytes(parameters, ranks, stage), results[0][1]
        off = f"{held.total / predicted.total - 1:+.2%}"
        rows.append(
            (name, *map(units.size, held), units.size(held.total), units.size(predicted.total), off)
        )
    headers = ("", *KINDS, "together", "predicted", "off by")
    note = f"Bytes a rank: {parameters:,} parameters on {ranks} ranks, fp32, AdamW."
    return Table(headers, tuple(rows), note)


def layer_ratios(times: Mapping[str, Sequence[float]]) -> dict[int, Estimate]:
    """Return {width: how many times faster the layer that is split} from measure.layer_times."""
    widths = [int(name.split()[1]) for name in times if name.startswith("whole")]
    return {w: paired_ratio(times[f"whole {w}"], times[f"split {w}"]) for w in widths}


def read_layers(ratios: Mapping[int, Estimate]) -> Prose:
    """Return from which width on splitting a layer pays."""
    calls = {w: Verdict("split", "whole", STEP_TIME, ratio).call for w, ratio in ratios.items()}
    lines = [f"- width {w:,}: **{ratio:.2fx}** as fast as whole" for w, ratio in ratios.items()]
    paying = [w for w, call in calls.items() if call == "better"]
    losing = [w for w, call in calls.items() if call == "worse"]
    if not paying and not losing:
        end = "Whether splitting pays can't be told at any of these widths."
    elif not paying:
        end = (
            f"Splitting pays at none of these widths here. At width {_listed(losing)} the sums "
            "cost more than is saved."
        )
    elif losing and max(losing) < min(paying):
        end = (
            f"Up to width {max(losing):,} the sums cost more than is saved; from {min(paying):,} "
            "on the layer is dear enough. Work grows with the square of the width, what is sent "
            "only with the width."
        )
    elif not losing:
        end = (
            f"Splitting loses at none of these widths here, and pays at width {_listed(paying)}: "
            "messages are cheap on this machine."
        )
    else:
        end = "There is no clear border between the widths at which splitting pays and the others."
    return Prose("\n".join(lines) + f"\n\n{end}")


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(f"{number:,}" for number in numbers)


def read_race(raced: Mapping[str, Sequence[Raced]], guess: Prediction) -> Prose:
    """Return the verdict of each way over one process, and what splitting costs where it need not.

    Args:
        raced: {"tensor" or "pipeline": what each rank of measure.race returned, with the ways
            "one process", "data" and this one}.
        guess: how many times as fast as one process "tensor" is.
    """
    verdicts = race_verdicts(raced)
    lines = [f"- {verdict}" for verdict in verdicts.values()]
    lines += ["", guess.against(verdicts["tensor"].estimate), ""]
    faster = [way for way, verdict in verdicts.items() if verdict.call == "better"]
    if faster:
        cores = (
            f"Faster than one process: {', '.join(faster)}. Two processes use two cores, one "
            "process uses one: up to 2x is no merit of the split."
        )
    else:
        cores = "No way is shown to be faster than one process, although there are two processes."
    return Prose("\n".join([*lines, f"{_agreement(raced)} {cores} {_against_data(raced)}"]))


def race_verdicts(raced: Mapping[str, Sequence[Raced]]) -> dict[str, Verdict]:
    """Return {way: verdict of its step time over one process}; "data" is of the first job."""
    first = next(iter(raced))
    return {
        way: _verdict(raced.get(way, raced[first]), way, "one process") for way in ("data", *raced)
    }


def _verdict(ranks: Sequence[Raced], way: str, baseline: str) -> Verdict:
    times, _ = ranks[0]
    return Verdict(way, baseline, STEP_TIME, paired_ratio(times[baseline], times[way]))


def _agreement(raced: Mapping[str, Sequence[Raced]]) -> str:
    gaps = [0.0]
    for ranks in raced.values():
        means = [_over_ranks([losses[way] for _, losses in ranks]) for way in ranks[0][1]]
        gaps += [
            abs(loss - right) for mine in means for loss, right in zip(mine, means[0], strict=True)
        ]
    if any(map(isnan, gaps)):
        return "Some losses are no numbers: something is wrong in one of the ways."
    if (worst := max(gaps)) <= 1e-3:
        return f"All ways learn the same: in no step are losses more than {worst:.0e} apart."
    return f"The losses drift apart by up to {worst:.2g}: something is wrong in one of the ways."


def _against_data(raced: Mapping[str, Sequence[Raced]]) -> str:
    """Compare the ways that save memory with plain data parallel, which does not."""
    calls = {way: _verdict(ranks, way, "data").call for way, ranks in raced.items()}
    slower = [way for way, call in calls.items() if call == "worse"]
    if not slower:
        return "Neither tensor nor pipeline is seen to be slower than plain data parallel here."
    said = f"Slower than plain data parallel: {', '.join(slower)}. "
    if len(slower) < len(calls):
        others = ", ".join(way for way in calls if way not in slower)
        return f"{said}Not seen to be slower: {others}. What a split buys is memory."
    return said + (
        "**Where the model fits, splitting it does not pay here**: it buys memory, not time."
    )
