"""What a race and a tradeoff refuse: what cannot be compared, and the file of another race."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from labkit.checks import check_positive_int
from labkit.compare.record import Record
from labkit.compare.samples import Samples
from labkit.seeds import HIGHEST_SEED
from labkit.training import Recipe
from labkit.training.task import Batch


def check_arms(arms: Mapping[str, Recipe], seeds: int) -> dict[str, Recipe]:
    """Return {name: recipe} of arms that can race each other with so many seeds.

    Raises:
        ValueError: no arms, arms of different metrics, or seeds beyond the highest there is.
        TypeError: an arm is not a Recipe.
    """
    Samples(arms)  # refuses what is no set of names
    check_positive_int("seeds", seeds)
    for name, recipe in arms.items():
        if not isinstance(recipe, Recipe):
            raise TypeError(f"arm {name!r} must be a Recipe, got {type(recipe).__name__}")
        if recipe.seed + seeds - 1 > HIGHEST_SEED:
            raise ValueError(
                f"arm {name!r} has the seed {recipe.seed}: {seeds} seeds from there on lie beyond "
                f"{HIGHEST_SEED}, the highest"
            )
    metrics = {name: recipe.task.metric for name, recipe in arms.items()}
    if len(set(metrics.values())) > 1:
        found = ", ".join(f"{name}: {metric.name}" for name, metric in metrics.items())
        raise ValueError(f"arms must have the same metric to be compared, got {found}")
    return dict(arms)


def check_examples(records: Mapping[str, list[Record]]) -> None:
    """Refuse arms that are tested on different data: their scores make no pairs."""
    last = {name: of_arm[-1].scores for name, of_arm in records.items()}
    counts = {name: len(scores) for name, scores in last.items() if scores is not None}
    if len(set(counts.values())) > 1:
        raise ValueError(f"arms must be tested on the same examples, got {counts} of them")


def other_race(
    state: Mapping[str, Any], mine: dict[str, dict[str, str]], counts: Mapping[str, int]
) -> str:
    """Return in what a saved race is another one, or "".

    Args:
        state: of the saved race.
        mine: {arm: fingerprints} of the race that is to continue it.
        counts: {"seeds" or "evaluations": how many that race has}.
    """
    theirs: dict[str, dict[str, str]] = state["arms"]
    if list(theirs) != list(mine):
        return f"its arms are {', '.join(theirs)}"
    for name, fields in mine.items():
        for field, text in fields.items():
            if theirs[name].get(field) != text:
                return f"its arm {name!r} has another {field}"
    for name, count in counts.items():
        saved = state.get(name, "unknown")  # an older file does not say how many evaluations
        if saved != count:
            return f"its {name} are {saved}"
    return ""


def check_variants(variants: Mapping[str, object]) -> dict[str, tuple[nn.Module, ...]]:
    """Return {name: models, one for each seed}.

    Raises:
        TypeError: a variant is no module.
        ValueError: no variants, or not as many models in each.
    """
    if not variants:
        raise ValueError("variants is empty: give at least the baseline")
    checked: dict[str, tuple[nn.Module, ...]] = {}
    for name, given in variants.items():
        models = (given,) if isinstance(given, nn.Module) else given
        if not isinstance(models, Sequence) or not all(isinstance(m, nn.Module) for m in models):
            kind = type(given).__name__
            raise TypeError(f"variants[{name!r}] must be a module or several, got {kind}")
        checked[name] = tuple(models)
    counts = {name: len(models) for name, models in checked.items()}
    if min(counts.values()) == 0 or len(set(counts.values())) > 1:
        raise ValueError(f"variants must have a model for each of the same seeds, got {counts}")
    return checked


def check_batches(test: Iterable[Batch]) -> tuple[Batch, ...]:
    """Return the batches.

    Raises:
        ValueError: there are none.
    """
    batches = tuple(test)
    if not batches:
        raise ValueError("test is empty: there is nothing to answer")
    return batches
