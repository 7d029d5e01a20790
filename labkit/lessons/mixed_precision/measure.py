"""What notebook 03 works out: who runs the long race, and what the roof allows."""

from collections.abc import Mapping

from labkit.compare import Race
from labkit.measure import Ceiling, Standing, predict_seconds
from labkit.training import Recipe

SLOWEST = 4  # a format whose steps take longer than this many fp32 steps sits out the long race


SHORT = 12  # steps of the race if every 16-bit format has to sit out


def quick_enough(race: Race) -> list[str]:
    """Return the arms whose steps take at most SLOWEST times those of the first."""
    others = [name for name in race.arms if name != race.baseline]
    fast = [name for name in others if race.verdict(name).estimate.value > 1 / SLOWEST]
    return [race.baseline, *fast]


def entrants(race: Race, base: Recipe) -> dict[str, Recipe]:
    """Return the arms of the long race: fp32 and each format that was quick enough in `race`.

    If none was, the least slow one races fp32 over a few steps, so that there is a verdict.
    """
    names = quick_enough(race)
    if len(names) == 1:
        others = [name for name in race.arms if name != race.baseline]
        best = max(others, key=lambda name: race.verdict(name).estimate.value)
        base, names = base.but(steps=SHORT), [*names, best]
    return {name: base.but(precision=name) for name in names}


def allowed(standings: Mapping[str, Standing], roof: Ceiling) -> float:
    """Return how many times faster the roof allows the second step to be than the first."""
    first, second = (
        predict_seconds(standing.flops, standing.bytes, roof, dtype)
        for dtype, standing in list(standings.items())[:2]
    )
    return first / second
