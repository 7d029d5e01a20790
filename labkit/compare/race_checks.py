"""What a race refuses: arms that cannot be compared, and the file of another race."""

from collections.abc import Iterable, Mapping
from typing import Any

from labkit.compare.record import Record
from labkit.training import Recipe


def check_arms(arms: Mapping[str, Recipe] | Iterable[tuple[str, Recipe]]) -> dict[str, Recipe]:
    """Return {name: recipe} of arms that can race each other.

    Raises:
        ValueError: no arms, two of one name, or arms of different metrics.
        TypeError: an arm is not a Recipe.
    """
    pairs = list(arms.items() if isinstance(arms, Mapping) else arms)
    if not pairs:
        raise ValueError("arms is empty: a race needs at least one arm")
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"arms has the name {twice!r} more than once")
    for name, recipe in pairs:
        if not isinstance(recipe, Recipe):
            raise TypeError(f"arm {name!r} must be a Recipe, got {type(recipe).__name__}")
    metrics = {name: recipe.task.metric for name, recipe in pairs}
    if any(metric != metrics[names[0]] for metric in metrics.values()):
        found = ", ".join(f"{name}: {metric.name}" for name, metric in metrics.items())
        raise ValueError(f"arms must have the same metric to be compared, got {found}")
    return dict(pairs)


def check_examples(records: Mapping[str, list[Record]]) -> None:
    """Refuse arms that are tested on different data: their scores make no pairs."""
    last = {name: of_arm[-1].scores for name, of_arm in records.items()}
    counts = {name: len(scores) for name, scores in last.items() if scores is not None}
    if len(set(counts.values())) > 1:
        raise ValueError(f"arms must be tested on the same examples, got {counts} of them")


def other_race(state: Mapping[str, Any], mine: dict[str, dict[str, str]], seeds: int) -> str:
    """Return in what a saved race is another one, or ""."""
    theirs: dict[str, dict[str, str]] = state["arms"]
    if list(theirs) != list(mine):
        return f"its arms are {', '.join(theirs)}"
    for name, fields in mine.items():
        for field, text in fields.items():
            if theirs[name].get(field) != text:
                return f"its arm {name!r} has another {field}"
    return "" if state["seeds"] == seeds else f"its seeds are {state['seeds']}"
