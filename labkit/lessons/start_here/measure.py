"""What notebook 00 measures: how one would time two arms that do not take turns."""

from statistics import fmean

from labkit.compare import Race


def first_one_then_the_other(race: Race, first: str, second: str) -> float:
    """Return the speed ratio as if all steps of `first` had been timed before those of `second`.

    The arms have taken turns, so the first half of one and the second half of the other are what
    such a measurement would have seen.

    Args:
        race: with at least one pair of timed steps.
        first, second: two of its arms.
    """
    timed = {
        arm: [seconds for record in race.records[arm] for seconds in record.timed().values()]
        for arm in (first, second)
    }
    half = (len(timed[first]) + 1) // 2
    return fmean(timed[first][:half]) / fmean(timed[second][-half:])
