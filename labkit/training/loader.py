"""What a loader remembers: the generators and counters that decide which batches come next.

To resume in mid-epoch, an epoch is dealt again from its start. For that the global generators must
stand where they stood then, and so must what a loader keeps for itself: `DataLoader(generator=…)`,
a sampler's own generator or its count of epochs, a data set that draws. Nobody says where these
are, so they are looked for in the attributes of the loader, of its sampler, of its data set.

Generators are always remembered. Numbers, and lists of numbers, only if they were seen to change
from one epoch to the next: a batch size or a rank is a setting, and stays that of this process.
"""

import random
from collections.abc import Iterable, Iterator
from types import FunctionType, ModuleType
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from labkit.seeds import without_arrays

DEEPEST, WIDEST, LONGEST = 6, 16, 100_000
"""How far it is looked for: attributes of attributes, entries of containers, lists of numbers."""
GENERATORS = (torch.Generator, numpy.random.Generator, numpy.random.RandomState, random.Random)
# An iterator of worker processes counts its messages: that is no matter of an epoch.
_OPAQUE = (Tensor, nn.Module, type, FunctionType, ModuleType, Iterator, *GENERATORS)


class Loader:
    """Looks into an iterable of batches: `remember` at the start of an epoch, `recall` later."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches
        self._first = self._last = self._look()[1]
        self._moved: set[str] = set()

    def set_epoch(self, epoch: int) -> None:
        """Tell all parts that ask for it which epoch begins.

        A DataLoader has no epochs, but its sampler may: DistributedSampler deals every epoch in
        the same order unless it is told.
        """
        for _, _, part in self._walk().values():
            if callable(getattr(part, "set_epoch", None)):
                part.set_epoch(epoch)

    def watch(self) -> None:
        """Note which numbers have changed since the last look: dealing has changed them."""
        last, self._last = self._last, self._look()[1]
        self._moved |= {w for w, number in self._last.items() if number != last.get(w, number)}

    def remember(self) -> dict[str, Any]:
        """Return {where: state} of the generators, and of all numbers that were seen to change."""
        generators, numbers = self._look()
        self._last = numbers  # what somebody set between two epochs is a setting
        states = {where: _state(generator) for where, generator in generators.items()}
        return states | {where: numbers[where] for where in self._moved & numbers.keys()}

    def recall(self, memory: dict[str, Any]) -> None:
        """Put everything back to where it stood.

        Raises:
            ValueError: the memory is of another kind of loader; nothing was changed.
        """
        generators, numbers = self._look()
        if other := (memory.keys() - numbers.keys()) ^ generators.keys():
            names = ", ".join(sorted(other))
            raise ValueError(f"the batches are of another kind than the checkpoint's: {names}")
        places = self._walk()
        for where in (self._moved & numbers.keys()) | (memory.keys() & numbers.keys()):
            holder, name, _ = places[where]
            number = memory.get(where, self._first.get(where, numbers[where]))
            attributes = holder if isinstance(holder, dict | list) else vars(holder)
            attributes[name] = list(number) if isinstance(number, list) else number
        for where, generator in generators.items():
            _put(generator, memory[where])
        self._last = self._look()[1]

    def _look(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return {where: generator} and {where: number, or copy of a list of numbers}."""
        places = {where: value for where, (_, _, value) in self._walk().items()}
        generators = {w: value for w, value in places.items() if isinstance(value, GENERATORS)}
        numbers = {w: value for w, value in places.items() if type(value) in (int, float)}
        lists = {w: list(value) for w, value in places.items() if _is_list_of_numbers(value)}
        return generators, numbers | lists

    def _walk(self) -> dict[str, tuple[Any, Any, Any]]:
        """Return {where: (holder, name in it, value)} of all that the loader is made of."""
        found: dict[str, tuple[Any, Any, Any]] = {}
        todo: list[tuple[str, Any, Any, Any]] = [("batches", None, "", self.batches)]
        known: set[int] = set()
        while todo:
            where, holder, name, value = todo.pop()
            found[where] = (holder, name, value)
            if id(value) not in known and where.count(".") < DEEPEST:
                known.add(id(value))
                todo += [(f"{where}.{key}", value, key, held) for key, held in _inside(value)]
        return found


def _inside(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, _OPAQUE) or _is_list_of_numbers(value):
        return []
    if type(value) in (dict, list, tuple):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        return list(entries) if len(value) <= WIDEST else []
    return list(vars(value).items()) if hasattr(value, "__dict__") else []


def _is_list_of_numbers(value: Any) -> bool:
    return (
        type(value) is list
        and len(value) <= LONGEST
        and all(type(entry) in (int, float) for entry in value)
    )


def _state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, numpy.random.Generator):
        return without_arrays(dict(generator.bit_generator.state))
    if isinstance(generator, numpy.random.RandomState):
        return without_arrays(generator.get_state(legacy=False))
    return generator.getstate()


def _put(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, numpy.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, numpy.random.RandomState):
        generator.set_state(state)
    else:
        version, words, gauss = state
        generator.setstate((version, tuple(words), gauss))
