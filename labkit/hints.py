"""Arguments of a wrong type are refused in one place, by the type hints of what is called.

What has the right type and a wrong value is refused where the value is used (labkit.checks).
"""

import functools
import importlib.abc
import importlib.machinery
import inspect
import re
import reprlib
import sys
import typing
from collections.abc import Callable, Sequence
from types import FunctionType, ModuleType
from typing import Any, ClassVar, cast

import numpy

UNCHECKED = (
    *("checks", "training.loop", "training.step", "training.stream"),
    "distributed.launcher.worker",
)
"""What a training step runs through, where a microsecond a call counts; and a rank's own."""


def check_package(package: str) -> None:
    """Let all public functions and methods of a package compare their arguments with their hints.

    beartype does that, in about a microsecond a call. It is asked at the first call of a function,
    so that the import stays cheap. What comes back is not compared: that is mypy's business.

    Args:
        package: name of the package that calls this, before it imports its modules.

    Source: https://beartype.readthedocs.io, which has such an import hook for all functions.
    """
    sys.meta_path.insert(0, _Finder(package))


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, package: str) -> None:
        self.within = f"{package}."
        self.unchecked = tuple(self.within + name for name in UNCHECKED)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not name.startswith(self.within) or name in self.unchecked:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    running: ClassVar[int] = 0

    def exec_module(self, module: ModuleType) -> None:
        _Loader.running += 1
        try:
            super().exec_module(module)
        finally:
            _Loader.running -= 1
        for name, thing in list(vars(module).items()):
            if not name.startswith("_") and getattr(thing, "__module__", None) == module.__name__:
                setattr(module, name, _checked(thing))


def _checked(thing: Any) -> Any:
    """Return a function that checks, or a class after having its methods checked."""
    if isinstance(thing, FunctionType):
        return _checked_function(thing)
    if isinstance(thing, type) and not getattr(thing, "_is_protocol", False):
        for name, method in list(vars(thing).items()):
            # torch traces the forward pass of a module: nothing may stand between.
            if name == "forward" or (name.startswith("_") and name != "__init__"):
                continue
            if getattr(method, "__module__", None) != thing.__module__:
                continue  # a function that is a field's default
            if isinstance(method, FunctionType):
                setattr(thing, name, _checked_function(method))
            elif isinstance(method, (classmethod, staticmethod)):
                inner = cast(FunctionType, method.__func__)
                setattr(thing, name, type(method)(_checked_function(inner)))
    return thing


class _WrongType(TypeError):
    """What beartype raises, until it is said in our words."""


def _checked_function(function: FunctionType) -> Callable[..., Any]:
    inner = inspect.unwrap(function)
    comparing: list[Callable[..., Any]] = []

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        __tracebackhide__ = True  # IPython and pytest leave this frame out
        if _Loader.running:  # labkit's own defaults: right, and no reason to import beartype
            return function(*arguments, **named)
        if not comparing:
            comparing.append(_comparing(function))
        try:
            return comparing[0](*arguments, **named)
        except _WrongType as error:
            refused = error
        _refuse(inner, arguments, named)
        raise refused

    @functools.wraps(function)
    def call_decorated(*arguments: Any, **named: Any) -> Any:
        __tracebackhide__ = True
        _refuse(inner, arguments, named)
        return function(*arguments, **named)

    plain = inner is function and not inspect.isgeneratorfunction(function)
    return call if plain else call_decorated  # a generator would only compare when it is read


def _comparing(function: FunctionType) -> Callable[..., Any]:
    """Return a copy of the function that compares each argument with its hint first."""
    from beartype import beartype

    code, defaults, closure = function.__code__, function.__defaults__, function.__closure__
    copy = FunctionType(code, function.__globals__, function.__name__, defaults, closure)
    copy.__kwdefaults__, copy.__qualname__ = function.__kwdefaults__, function.__qualname__
    copy.__annotations__ = _hints(function)
    return beartype(conf=_configuration())(copy)


def _hints(function: FunctionType) -> dict[str, Any]:
    """Return the hints of the arguments, but for those that nothing can be compared with."""
    hints = typing.get_type_hints(function).items()
    return {name: hint for name, hint in hints if name != "return" and not _only_for_mypy(hint)}


def _only_for_mypy(hint: Any) -> bool:
    """Whether it is a protocol that says nothing of instances."""
    runtime: bool = getattr(hint, "_is_runtime_protocol", True)
    return not runtime


@functools.cache
def _configuration() -> Any:
    from beartype import BeartypeConf, FrozenDict

    whole = int | numpy.integer
    return BeartypeConf(
        hint_overrides=FrozenDict({int: whole, float: float | numpy.floating | whole}),
        is_random=False,  # of a list it looks at one item: always at the same
        violation_param_type=_WrongType,
    )


def _refuse(function: FunctionType, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Raise an error of the first argument that does not fit its hint, if there is one.

    Raises:
        TypeError: it has another type.
        ValueError: it is none of the words that are allowed.
    """
    from beartype.door import is_bearable

    given = inspect.signature(function).bind(*arguments, **named)
    for name, hint in _hints(function).items():
        for value in _values(given, name):
            if is_bearable(value, hint, conf=_configuration()):
                continue
            if typing.get_origin(hint) is typing.Literal:
                words = ", ".join(map(repr, typing.get_args(hint)))
                raise ValueError(f"{name} must be one of {words}, got {reprlib.repr(value)}")
            wanted = re.sub(r"\b\w+\.", "", inspect.formatannotation(hint))
            raise TypeError(f"{name} must be of type {wanted}, got {reprlib.repr(value)}")


def _values(given: inspect.BoundArguments, name: str) -> tuple[Any, ...]:
    """Return what was given for a parameter: nothing, one value, or those of `*` and `**`."""
    if name not in given.arguments:
        return ()
    kind, value = given.signature.parameters[name].kind, given.arguments[name]
    if kind is inspect.Parameter.VAR_KEYWORD:
        return tuple(value.values())
    return tuple(value) if kind is inspect.Parameter.VAR_POSITIONAL else (value,)
