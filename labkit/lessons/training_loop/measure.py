"""What notebook 01 measures: each part's share of a step, and the parts by batch size."""

from collections.abc import Iterable, Iterator, Sequence

from labkit.training import Phases, Recipe, Step

PARTS = Phases._fields[:4]


def shares(phases: Sequence[Phases]) -> dict[str, float]:
    """Return {part: its share of the time of all steps}, 0 to 1.

    Raises:
        ValueError: no step was measured.
    """
    if not phases:
        raise ValueError("phases is empty: run the live view again and let it do a few steps")
    whole = sum(map(sum, phases))
    return {part: sum(getattr(step, part) for step in phases) / whole for part in PARTS}


def phases_by_batch(
    recipe: Recipe, sizes: Iterable[int], rounds: int, warmup: int = 2
) -> dict[int, list[Phases]]:
    """Return {batch size: phases of each step}; the sizes take turns, a step a round."""
    total = warmup + rounds
    running: dict[int, Iterator[Step]] = {
        size: iter(recipe.but(batch_size=size, steps=total).training(timed=True)) for size in sizes
    }
    taken: dict[int, list[Phases]] = {size: [] for size in running}
    for number in range(total):
        for size, steps in running.items():
            phases = next(steps).phases
            if number >= warmup:
                taken[size].append(phases)
    return taken
