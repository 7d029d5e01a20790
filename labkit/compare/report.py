"""From a race's records to verdicts, a table and a scoreboard row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labkit.compare import scoreboard
from labkit.compare.record import Record
from labkit.compare.verdict import Verdict
from labkit.measure.statistics import (
    Estimate,
    mean_interval,
    mean_ratio,
    median_interval,
    paired_ratio,
)
from labkit.table import Table

if TYPE_CHECKING:
    from labkit.compare.race import Race

COMPARISONS = ("step time", "time to target", "accuracy", "peak memory")


def verdict(race: Race, candidate: str, over: str, on: str) -> Verdict:
    """Return the verdict of `candidate` over the arm `over`; see `Race.verdict`."""
    check_arms(race, candidate, over)
    if on not in COMPARISONS:
        raise ValueError(f"on must be one of {', '.join(COMPARISONS)}, got {on!r}")
    estimate = _estimate(race, candidate, over, on)
    if estimate is None:
        raise ValueError(f"nothing measured yet for {on!r} of {candidate!r} and {over!r}")
    return Verdict(candidate, over, on, estimate)


def check_arms(race: Race, *names: str) -> None:
    """Raise a ValueError that names the first of `names` that is no arm of `race`."""
    for name in names:
        if name not in race.arms:
            raise ValueError(f"no arm {name!r} in this race; it has {', '.join(race.arms)}")


def _estimate(race: Race, candidate: str, over: str, on: str) -> Estimate | None:
    theirs, mine = race.records[over], race.records[candidate]
    if on == "step time":
        return speed(theirs, mine)
    if on == "peak memory":
        ratio = race.probes()[over].peak_bytes / race.probes()[candidate].peak_bytes
        return Estimate(ratio, ratio, ratio, 1)
    pairs: list[tuple[float | None, float | None]]
    if on == "accuracy":
        pairs = list(zip(last_accuracies(theirs), last_accuracies(mine), strict=True))
    else:
        target = race.target
        if target is None:
            raise ValueError("this race has no target: give Race(..., target=0.9)")
        pairs = [
            (a.seconds_to(target), b.seconds_to(target)) for a, b in zip(theirs, mine, strict=True)
        ]
    # A seed in which one arm has no figure yet, or never reached the target, makes no pair.
    whole = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not whole:
        return None
    if on == "accuracy":
        return mean_interval([100 * (b - a) for a, b in whole])
    return mean_ratio([a for a, _ in whole], [b for _, b in whole])


def paired_steps(
    baseline: list[Record], candidate: list[Record]
) -> tuple[list[float], list[float]]:
    """Return the seconds of both arms' steps of the same rounds, without the warm-up."""
    slow: list[float] = []
    fast: list[float] = []
    for theirs, mine in zip(baseline, candidate, strict=True):
        other = mine.timed()
        for number, seconds in theirs.timed().items():
            if number in other:
                slow.append(seconds)
                fast.append(other[number])
    return slow, fast


def speed(
    baseline: list[Record], candidate: list[Record], resamples: int = 2000
) -> Estimate | None:
    """Return how many times faster the candidate's steps are, paired round by round."""
    slow, fast = paired_steps(baseline, candidate)
    return paired_ratio(slow, fast, resamples=resamples) if slow else None


def step_milliseconds(records: list[Record]) -> Estimate | None:
    """Return the median milliseconds of a step without the warm-up."""
    samples = [1e3 * seconds for record in records for seconds in record.timed().values()]
    return median_interval(samples) if samples else None


def last_accuracies(records: list[Record]) -> list[float | None]:
    """Return the last accuracy of each seed, None where a training is behind the furthest one.

    A training that was stopped half-way must not be averaged with those that went to the end.
    """
    furthest = max((len(record.evaluations) for record in records), default=0)
    return [r.accuracy() if len(r.evaluations) == furthest else None for r in records]


def accuracy_percent(records: list[Record]) -> Estimate | None:
    """Return the mean over the seeds of the accuracies in percent, as far as they have come."""
    known = [a for a in last_accuracies(records) if a is not None]
    return mean_interval([100 * a for a in known]) if known else None


def table(race: Race) -> Table:
    """Return the table of a race; see `Race.table`."""
    headers = ["arm", "ms a step", "speed", "accuracy %", "peak MiB a step", "steps", "seeds"]
    if race.target is not None:
        headers.insert(4, f"s to {100 * race.target:g} %")
    rows = []
    for name, records in race.records.items():
        time, accuracy = step_milliseconds(records), accuracy_percent(records)
        ratio = speed(race.records[race.baseline], records) if name != race.baseline else None
        cells = [
            name,
            f"{time:.1f}" if time else "–",
            "1 (baseline)" if name == race.baseline else f"{ratio:.2fx}" if ratio else "–",
            f"{accuracy:.2f}" if accuracy else "–",
            f"{race.probes()[name].peak_bytes / 2**20:.1f}",
            str(sum(len(record.seconds) for record in records)),
            str(sum(a is not None for a in last_accuracies(records))),
        ]
        if race.target is not None:
            cells.insert(4, _to_target(records, race.target))
        rows.append(tuple(cells))
    return Table(tuple(headers), tuple(rows), note=_note(race))


def _to_target(records: list[Record], target: float) -> str:
    times = [record.seconds_to(target) for record in records]
    reached = [seconds for seconds in times if seconds is not None]
    if not reached:
        return "not reached"
    suffix = "" if len(reached) == len(times) else f" ({len(reached)} of {len(times)} seeds)"
    return f"{sum(reached) / len(reached):.1f}{suffix}"


def _note(race: Race) -> str:
    base = race.arms[race.baseline]
    differing = sorted({f for recipe in race.arms.values() for f in base.differences(recipe)})
    what = f"Arms differ in: {', '.join(differing)}." if differing else "The arms are the same."
    return f"{what} In brackets: 95 % intervals."


def row(race: Race, what: str, *, notebook: str, profile: str) -> dict[str, Any]:
    """Return the scoreboard row of a race; see `Race.row`."""
    figures: dict[str, tuple[Estimate, str]] = {}
    for name, records in race.records.items():
        candidates = {
            f"{name}: step": (step_milliseconds(records), "ms"),
            f"{name}: accuracy": (accuracy_percent(records), "%"),
        }
        if name != race.baseline:
            ratio = speed(race.records[race.baseline], records)
            candidates[f"{name}: speed over {race.baseline}"] = (ratio, "x")
        figures |= {key: (value, unit) for key, (value, unit) in candidates.items() if value}
    return scoreboard.row(what, figures, notebook=notebook, profile=profile)
