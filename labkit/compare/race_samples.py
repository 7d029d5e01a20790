"""From the records of a race to its samples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from labkit.compare.quantity import PEAK_MEMORY, STEP_TIME, TIME_TO_TARGET, Quantity
from labkit.compare.record import Record
from labkit.compare.samples import Samples


def samples_of(
    records: Mapping[str, Sequence[Record]], metric: Quantity, target: float | None
) -> Samples:
    """Return the samples of a race, in the order of the columns of its table.

    Args:
        records: {arm: one record a seed}, the baseline first.
        metric: which the mean of all scores is.
        target: mean score of the time to target, or None.
    """
    to_target = TIME_TO_TARGET
    if target is not None:
        shown = f"{metric.scale * target:g} {metric.unit}"
        to_target = replace(TIME_TO_TARGET, header=f"s to {shown}")
    columns = (STEP_TIME, metric, *([] if target is None else [to_target]), PEAK_MEMORY)
    samples = Samples(records, columns)
    for arm, of_arm in records.items():
        for seed, record in enumerate(of_arm):
            for number, seconds in record.timed().items():
                samples.add(arm, STEP_TIME, seconds, seed=seed, round=number)
            if record.scores is not None:
                evaluation = len(record.evaluations)
                samples.add_scores(arm, metric, record.scores, seed=seed, round=evaluation)
            if target is not None and record.evaluations:
                took = record.seconds_to(target, metric.higher_is_better)
                samples.add(arm, to_target, math.inf if took is None else took, seed=seed)
            if record.peak_bytes is not None:
                samples.add(arm, PEAK_MEMORY, record.peak_bytes)
    return samples
