"""Notebook 00: what its results mean."""

from labkit.compare import Race
from labkit.lessons.lesson import Prediction
from labkit.lessons.prose import Prose, three_calls
from labkit.measure import Standing


def read_standings(standings: dict[str, Standing]) -> Prose:
    """Return what the points under the roof say."""
    lines = []
    for name, standing in standings.items():
        limit = "computing" if standing.bound == "compute" else "memory"
        lines.append(
            f"- **{name}**: a step takes {1e3 * standing.seconds:.0f} ms and reaches "
            f"{standing.achieved:.0f} GFLOP/s, {standing.fraction:.0%} of the "
            f"{standing.attainable:.0f} that the roof allows here. Its limit is {limit}."
        )
    return Prose("\n".join(lines))


def read_verdict(race: Race, candidate: str, guess: Prediction | None = None) -> Prose:
    """Return the verdict on step time, what it means, and how a prediction compares."""
    verdict = race.verdict(candidate)
    meaning = {
        "better": f"On this machine you would choose **{candidate}**: the whole interval lies "
        "above 1.",
        "worse": f"On this machine you would stay with **{verdict.baseline}**: the whole interval "
        "lies below 1.",
        "can't tell": "The interval holds 1, or lies so close to it that nobody would notice. "
        "Measure longer, or decide on other grounds.",
    }[three_calls(verdict)]
    compared = f"\n\n{guess.against(verdict.estimate)}" if guess else ""
    return Prose(f"**{verdict}**\n\n{meaning}{compared}")


def read_sequential(race: Race, first: str, second: str) -> Prose:
    """Return what timing one arm after the other would have said of two equal arms."""
    ratios = race.ratios(second, over=first)
    half = len(ratios) // 2
    early = [s for record in race.records[first] for s in record.timed().values()][:half]
    late = [s for record in race.records[second] for s in record.timed().values()][-half:]
    sequential = (sum(early) / half) / (sum(late) / half)
    return Prose(
        f"The two arms are the same code. A single pair of steps would have said anything from "
        f"{min(ratios):.2f}x to {max(ratios):.2f}x. The first half of one arm against the second "
        f"half of the other, which is how most people measure, would have said "
        f"{sequential:.2f}x. The race says {race.verdict(second).estimate:.2fx}."
    )
