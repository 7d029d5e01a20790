"""What notebook 01 measures: the parts of a step, for one batch size and for two in turn."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from labkit.compare import PEAK_MEMORY
from labkit.measure import interleave
from labkit.training import Phases, Recipe, Step, Training

PARTS = Phases._fields[:4]
WARMUP = 3
FEWEST = 12
"""Steps that are measured at least, also when the live view was stopped at once."""
FORWARD_MEMORY = replace(PEAK_MEMORY, header="peak MiB a forward pass")


def phases_of(seen: Sequence[Step], training: Training) -> list[Phases]:
    """Return the parts of the steps that were seen, without the first ones, which build kernels.

    Args:
        seen: the steps of `training` so far; if they are too few, it goes on.
        training: timed.
    """
    more = islice(training, max(0, FEWEST - len(seen)))
    return [step.phases for step in (*seen, *more)][WARMUP:]


def shares(phases: Sequence[Phases]) -> dict[str, float]:
    """Return {part: its share of the time of all steps}, 0 to 1.

    Raises:
        ValueError: no step was measured.
    """
    if not phases:
        raise ValueError("phases is empty: no step was measured")
    whole = sum(map(sum, phases))
    return {part: sum(getattr(step, part) for step in phases) / whole for part in PARTS}


def phases_by_batch(
    recipe: Recipe, sizes: Iterable[int], rounds: int, warmup: int = 2
) -> dict[int, list[Phases]]:
    """Return {batch size: phases of each step}; the sizes take turns, a step a round.

    Args:
        recipe: of the training; its batch size is replaced.
        sizes: different numbers of images a step.
        rounds: steps of each size.
        warmup: steps of each before those.
    """
    taken: dict[int, list[Phases]] = {size: [] for size in sizes}
    steps = {
        size: iter(recipe.but(batch_size=size, steps=warmup + rounds).training(timed=True))
        for size in taken
    }

    def step(size: int) -> None:
        taken[size].append(next(steps[size]).phases)

    one_step = {str(size): partial(step, size) for size in taken}
    interleave(one_step, rounds=rounds, warmup=warmup, device=recipe.device)
    return {size: phases[warmup:] for size, phases in taken.items()}
