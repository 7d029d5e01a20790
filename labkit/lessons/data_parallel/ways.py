"""Notebook 11: how near the ways come to the ceiling, and where the rest goes, in words."""

from collections.abc import Mapping, Sequence

from labkit.compare import STEP_TIME, Verdict
from labkit.distributed.parallel.averaging import CEILING, MEETING, STEPS
from labkit.lessons.data_parallel.checks import ENOUGH
from labkit.lessons.prose import Prose, three_calls
from labkit.measure import Estimate, paired_ratio
from labkit.plan.efficiency import StepCost
from labkit.table import Table

TUNED = "DDP, tuned"
CALLS = {"better": "faster", "worse": "slower", "can't tell": "no difference shown"}

Times = Mapping[str, Sequence[float]]
"""{way: seconds of each round}, the ceiling first."""


def shares(times: Times) -> dict[str, Estimate]:
    """Return what part of the ceiling's speed each way has. The first is the ceiling."""
    ceiling = next(iter(times.values()))
    return {name: paired_ratio(ceiling, seconds) for name, seconds in times.items()}


def ways_table(times: Times) -> Table:
    """Return the ways with their time, the ceiling first."""
    rows = []
    for name, share in shares(times).items():
        middle = sorted(times[name])[len(times[name]) // 2]
        ratio = "1" if name == CEILING else f"{share:.2f}"
        rows.append((name, f"{1e3 * middle / STEPS:.1f}", ratio))
    n = len(times[CEILING])
    note = f"n = {n}, each {STEPS} steps of both ranks, taken in turn; the slower rank counts"
    return Table(("way", "ms a step", "of the ceiling (95 %)"), tuple(rows), note=note)


def figures(times: Times) -> dict[str, tuple[Estimate, str]]:
    """Return what goes to the scoreboard."""
    return {
        f"{name}, of the ceiling": (share, "")
        for name, share in shares(times).items()
        if name != CEILING
    }


def read_ways(times: Times) -> Prose:
    """Return which way comes nearest to the ceiling, what each change did, and where the rest goes.

    Args:
        times: of time_averagings; any way but the ceiling may be missing.
    """
    share = {name: one for name, one in shares(times).items() if name not in (CEILING, MEETING)}
    best = max(share, key=lambda name: share[name].value)
    first = f"**{best} comes nearest, with {share[best]:.2f}; it {_enough(share[best])}.**"
    parts = [first + _ties(times, best, list(share)), _naive(times), _tried(times)]
    parts.append(_rest(times, best, share[best]))
    return Prose("\n\n".join(part for part in parts if part))


def _enough(share: Estimate) -> str:
    if share.low >= ENOUGH:
        return f"reaches {ENOUGH:.0%} of the ceiling: the whole interval lies above"
    if share.high < ENOUGH:
        return f"stays below {ENOUGH:.0%} of the ceiling here: the whole interval lies below"
    return f"may reach {ENOUGH:.0%} of the ceiling here, or not: the interval holds both"


def _ties(times: Times, best: str, ways: Sequence[str]) -> str:
    """Name those that may be as fast as the best."""
    others = [n for n in ways if n != best and paired_ratio(times[n], times[best]).low <= 1]
    return f" Not told apart from it: {'; '.join(others)}." if others else ""


def _naive(times: Times) -> str:
    if not {"naive", "one message"} <= set(times):
        return ""
    gap = paired_ratio(times["naive"], times["one message"])
    said = "The naive way sends the same bytes in many messages. One message is "
    if gap.low > 1:
        why = "each message costs its latency, and makes every rank wait for the slowest"
        return f"{said}{gap:.2fx} as fast: {why}."
    return f"{said}{gap:.2fx} as fast, {'no gain that can be shown' if gap.high > 1 else 'slower'}."


def _tried(times: Times) -> str:
    """Say what other settings of DDP do to its time."""
    found: dict[str, list[str]] = {word: [] for word in CALLS.values()}
    for name in times if TUNED in times else ():
        if name.startswith("DDP, ") and name != TUNED:
            ratio = paired_ratio(times[TUNED], times[name])
            call = three_calls(Verdict(name, TUNED, STEP_TIME, ratio))
            found[CALLS[call]].append(f"{name.removeprefix('DDP, ')} {ratio.value:.2f}x")
    told = "; ".join(f"{word}: {', '.join(names)}" for word, names in found.items() if names)
    return f"DDP with other settings, against *tuned*: {told}." if told else ""


def _rest(times: Times, best: str, share: Estimate) -> str:
    """Say how much of what is lost is waiting: ranks that only meet lose it as well."""
    if MEETING not in times:
        return ""
    met = shares(times)[MEETING]
    said = f"**Where the rest goes:** ranks that only meet, and send no gradient, reach {met:.2f}. "
    if met.high >= 1:
        return said + "So no loss by waiting for each other can be shown here."
    waiting, lost = 100 * (1 - met.value), 100 * (1 - share.value)
    if waiting < lost:
        said += (
            f"So about {waiting:.0f} of the {lost:.0f} points that {best} loses are waiting for "
            "whoever is late. What else it does, packing and sending, is the other part. "
        )
    else:
        said += f"{best} loses no more than that: all of it may be waiting for whoever is late. "
    return said + (
        "A rank is late when its core has something else to do, or runs slower. No message that is "
        "shorter wins that back."
    )


def read_small(times: Times, ranks: int) -> Prose:
    """Return whether data parallel pays for a tiny network.

    Args:
        times: of the ceiling and one way, at the same batch a rank.
        ranks: how many there were.
    """
    (name, share), *_ = [(n, one) for n, one in shares(times).items() if n != CEILING]
    gain = f"{ranks} x {share.value:.2f} = {ranks * share.value:.2f}"
    work = f"{gain} times the work of one that sends nothing"
    if ranks * share.high < 1:
        verdict = f"{ranks} ranks together do {work}: **one process alone is faster"
    elif ranks * share.low > 1:
        verdict = f"{ranks} ranks together still do {work}: **it pays"
    else:
        verdict = f"{ranks} ranks together do about {work}: **can't tell"
    return Prose(f"{name} keeps {share:.2f} of the ceiling. {verdict}.**")


def read_cost(cost: StepCost, times: Times, batch: int = 128) -> Prose:
    """Return the four numbers of a step, and what they leave out, seen in the ways' own times.

    Args:
        cost: measured by measure.time_costs.
        times: of time_averagings, with two ranks and `batch` images each.
        batch: images a rank.
    """
    message = cost.message
    predicted, measured = cost.efficiency(batch, 2), shares(times)["one message"]
    if measured.high < predicted:
        verdict = "The four numbers know of no packing, and of no rank that is late: that is more."
    elif measured.low > predicted:
        verdict = "They promise less: they were taken at another moment, on a busier machine."
    else:
        verdict = "So they tell all that is seen here."
    return Prose(
        f"A step: {1e3 * cost.fixed:.2f} ms + {1e6 * cost.image:.0f} µs an image. A message: "
        f"{1e6 * message.latency:.0f} µs + {1e9 * message.per_byte:.2f} ns a byte.\n\nFor {batch} "
        f"images and 2 ranks that makes {predicted:.0%} computing. Measured above, for one message "
        f"a step: {measured:.2f} of the ceiling. {verdict}"
    )
