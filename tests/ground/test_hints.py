"""Arguments of a wrong type are refused everywhere, by name, before anything happens."""

from __future__ import annotations

import importlib
import inspect
import pickle
import pkgutil
import types
import typing
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest.mock import Mock

import numpy
import pytest
import torch
from beartype.door import is_bearable
from torch import nn

import labkit
from labkit import hints, models, threads, train
from labkit.compare import Quantity, Samples
from labkit.training import SGD, cosine

# ---- what a refusal says

REFUSED: dict[str, Callable[[], object]] = {
    "model must be of type Module, got 'resnet18'": lambda: train("resnet18", [], None),
    "optimizer must be of type Optimizer, got None": lambda: train(nn.Linear(1, 1), [], None),
    "width must be of type int, got '16'": lambda: models.convnet("16"),
    "width must be of type int, got 0.5": lambda: models.convnet(width=0.5),
    "lr must be of type float, got None": lambda: SGD(lr=None),
    "metric must be of type Metric, got 'accuracy'": lambda: Quantity.of("accuracy"),
    "count must be of type int, got '2'": lambda: threads("2"),  # not only when it is entered
    "arm must be of type str, got 3": lambda: Samples("ab").value(3),
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_refusal_names_the_argument_what_is_right_and_what_came(words: str) -> None:
    with pytest.raises(TypeError) as caught:
        REFUSED[words]()
    assert str(caught.value) == words
    assert caught.value.__cause__ is None and caught.value.__suppress_context__ is False


def test_numbers_of_numpy_are_numbers() -> None:
    assert models.convnet(numpy.int64(8)).stem.out_channels == 8


def test_a_call_with_other_arguments_fails_as_python_says() -> None:
    with pytest.raises(TypeError, match=r"mlp\(\) got an unexpected keyword argument 'depth'"):
        models.mlp(depth=3)
    with pytest.raises(TypeError, match="missing 3 required positional arguments"):
        train()


def test_other_errors_of_types_pass_unchanged() -> None:
    def broken(progress: float) -> float:
        raise TypeError("mine")

    model = nn.Linear(2, 2)
    batches = [(torch.ones(1, 2), torch.zeros(1, dtype=torch.long))]
    training = train(model, batches, SGD(lr=0.1).build(model), schedule=broken)
    with pytest.raises(TypeError, match="mine"):
        list(training)


def test_what_is_checked_is_what_it_was() -> None:
    assert pickle.loads(pickle.dumps(models.mlp)) is models.mlp
    assert "hidden" in inspect.signature(models.mlp).parameters and models.mlp.__doc__
    assert pickle.loads(pickle.dumps(cosine(warmup=0.1))) == cosine(warmup=0.1)
    assert not hasattr(models.ConvNet.forward, "__wrapped__")  # torch traces it


# ---- everything public is checked

LEFT_ALONE = (*hints.UNCHECKED, "hints", "cli.__main__")


def public() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield all public functions, constructors and methods of labkit, by name."""
    for info in pkgutil.walk_packages(labkit.__path__, "labkit."):
        if info.name.removeprefix("labkit.") in LEFT_ALONE:
            continue
        module = importlib.import_module(info.name)
        for name, thing in vars(module).items():
            if not name.startswith("_") and getattr(thing, "__module__", None) == info.name:
                yield from members(f"{info.name}.{name}", thing)


def members(name: str, thing: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    if isinstance(thing, types.FunctionType):
        yield name, thing
    elif isinstance(thing, type) and not getattr(thing, "_is_protocol", False):
        for key, member in vars(thing).items():
            if getattr(member, "__module__", None) != thing.__module__:
                continue
            if isinstance(member, (classmethod, staticmethod)):
                member = member.__func__
            if isinstance(member, types.FunctionType) and (
                key == "__init__" or not (key.startswith("_") or key == "forward")
            ):
                yield f"{name}.{key}", member


FUNCTIONS = dict(public())
ONE_OF_EACH: dict[Any, Any] = {int: 1, float: 1.0, bool: True, str: "a", type(None): None}


class Wrong:
    """What no function of labkit takes, unless it takes everything."""


def stand_in(hint: Any) -> Any:
    """Something that fits the hint: the body of the function never sees it."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint in ONE_OF_EACH:
        return ONE_OF_EACH[hint]
    if origin in (typing.Union, types.UnionType, typing.Literal):
        return stand_in(parts[0]) if origin is not typing.Literal else parts[0]
    if hints._only_for_mypy(hint):
        return object()
    if origin is type:
        return parts[0]
    if origin is tuple and parts[-1] is not Ellipsis:
        return tuple(stand_in(part) for part in parts)
    kind = origin if isinstance(origin, type) else hint
    if kind is typing.Any or not isinstance(kind, type):
        return object()
    candidates = ((), {}, [], partial(int), Mock(spec=kind))
    return next(each for each in candidates if is_bearable(each, hint))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_argument_of_a_wrong_type_is_refused_by_name(name: str) -> None:
    function = FUNCTIONS[name]
    inner = inspect.unwrap(function)
    parameters, wanted = inspect.signature(inner).parameters, typing.get_type_hints(inner)
    right = {each: stand_in(wanted.get(each, object)) for each in parameters}
    for each in parameters.values():
        hint = wanted.get(each.name, object)
        if not hints._only_for_mypy(hint) and not is_bearable(Wrong(), hint):
            given = bound(parameters, right | {each.name: Wrong()})
            with pytest.raises(
                (TypeError, ValueError), match=f"^{each.name} must be o(f type|ne of) "
            ):
                function(*given.args, **given.kwargs)


def bound(
    parameters: typing.Mapping[str, inspect.Parameter], values: dict[str, Any]
) -> inspect.BoundArguments:
    """The arguments of a call: `*` and `**` hold one value each."""
    for each in parameters.values():
        if each.kind is each.VAR_POSITIONAL:
            values[each.name] = (values[each.name],)
        if each.kind is each.VAR_KEYWORD:
            values[each.name] = {"other": values[each.name]}
    signature = inspect.Signature(list(parameters.values()))
    return inspect.BoundArguments(signature, values)
