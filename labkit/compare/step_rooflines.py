"""Where the training steps of recipes stand under the machine's roofline."""

from collections.abc import Mapping

from labkit.facts import threads
from labkit.measure import Ceiling, Standing, flops, interleave, standing, traffic
from labkit.measure.ceiling import DTYPES
from labkit.seeds import kept_rng
from labkit.training import Recipe
from labkit.training.precision import Precision, precision_policy

WARMUP, ROUNDS = 3, 15


def step_standings(recipes: Mapping[str, Recipe], ceiling: Ceiling) -> dict[str, Standing]:
    """Time a few steps of each recipe, in turns, and place them under `ceiling`.

    The models are thrown away. FLOPs and bytes are those of a whole step, counted operation by
    operation; the time is the median of 15 steps after three of warm-up, on as many threads as the
    ceiling was measured with.

    Raises:
        ValueError: no recipes, or a precision that has no convolution ceiling on this machine.
    """
    with kept_rng(), threads(ceiling.threads):
        steps = {
            name: iter(recipe.but(steps=WARMUP + ROUNDS + 2).training(timed=True))
            for name, recipe in recipes.items()
        }
        calls = {name: lambda iterator=iterator: next(iterator) for name, iterator in steps.items()}
        timings = interleave(calls, rounds=ROUNDS, warmup=WARMUP, threads=ceiling.threads)
        return {
            name: standing(
                flops(call),
                traffic(call),
                timings[name].median,
                ceiling,
                dtype=_format(recipes[name].precision),
            )
            for name, call in calls.items()
        }


def _format(precision: str | Precision) -> str:
    """Return the name that the ceiling has for the format a precision multiplies in."""
    dtype = precision_policy(precision).dtype
    return next(name for name, known in DTYPES.items() if known == dtype)
