"""What a tradeoff refuses."""

from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from labkit.training.task import Batch


def check_variants(variants: object) -> dict[str, tuple[nn.Module, ...]]:
    """Return {name: models, one for each seed}.

    Raises:
        TypeError: no mapping, or a variant that is no module.
        ValueError: no variants, or not as many models in each.
    """
    if not isinstance(variants, Mapping):
        raise TypeError(f"variants must be {{name: model}}, got {type(variants).__name__}")
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
        TypeError: what was given is no batches.
        ValueError: there are none.
    """
    if not isinstance(test, Iterable):
        raise TypeError(f"test must be batches, such as a list, got {type(test).__name__}")
    batches = tuple(test)
    if not batches:
        raise ValueError("test is empty: there is nothing to answer")
    return batches
