"""Where a recipe's training step stands under the machine's roofline."""

from statistics import median

from labkit.facts import rng_state, set_rng_state, threads
from labkit.measure import Ceiling, Standing, flops, standing, traffic
from labkit.training import Recipe

WARMUP, STEPS = 3, 9


def step_standing(recipe: Recipe, ceiling: Ceiling) -> Standing:
    """Time a few steps of `recipe` on a throw-away model and place them under `ceiling`.

    FLOPs and bytes are those of a whole step, counted operation by operation; the time is the
    median of nine steps after three of warm-up, on as many threads as the ceiling was measured.

    Raises:
        ValueError: the recipe's precision has no convolution ceiling on this machine.
    """
    outer = rng_state()
    with threads(ceiling.threads):
        training = recipe.but(steps=WARMUP + STEPS + 2, epochs=None).training(timed=True)
        steps = iter(training)
        seconds = [next(steps).seconds for _ in range(WARMUP + STEPS)]
        work = flops(lambda: next(steps))
        moved = traffic(lambda: next(steps))
    set_rng_state(outer)
    dtype = recipe.precision.removesuffix("-unscaled")
    return standing(work, moved, median(seconds[WARMUP:]), ceiling, dtype=dtype)
