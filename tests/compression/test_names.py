"""What is called by its obvious name can be called: no module stands in front of a verb."""

import pkgutil
from types import ModuleType

import pytest

from labkit.compression import prune, quantize


@pytest.mark.parametrize("room", [prune, quantize], ids=["prune", "quantize"])
def test_no_module_has_the_name_of_something_public(room: ModuleType) -> None:
    modules = {module.name for module in pkgutil.iter_modules(room.__path__)}
    assert not modules & set(room.__all__)
    assert not any(isinstance(getattr(room, name), ModuleType) for name in room.__all__)


def test_the_obvious_first_calls_are_functions() -> None:
    for verb in (prune.channels, quantize.static, quantize.dynamic, quantize.weights):
        assert callable(verb) and verb.__doc__
