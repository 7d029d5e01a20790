"""What notebook 00 measures: how one would time two arms that do not take turns."""

from statistics import median

from labkit.compare import Race


def first_one_then_the_other(race: Race, first: str, second: str) -> float:
    """Return the median of the first half of `first` / that of the second half of `second`.

    The arms have taken turns, so that is what timing all of one before the other would compare.

    Args:
        race: with at least one pair of timed steps.
        first, second: two of its arms.
    """
    timed = {
        arm: [seconds for record in race.records[arm] for seconds in record.timed().values()]
        for arm in (first, second)
    }
    half = (len(timed[first]) + 1) // 2
    return median(timed[first][:half]) / median(timed[second][-half:])
