"""A function that was packed and unpacked does the same, and knows where it came from."""

from __future__ import annotations

import traceback

import cloudpickle

from labkit.distributed.launcher.packing import pack


def test_code_keeps_its_file_and_lines() -> None:
    def outer(number: int) -> int:
        def inner() -> int:
            if number < 0:
                raise ValueError("below zero")
            return number + 1

        return inner()

    unpacked = cloudpickle.loads(pack(outer))
    assert unpacked is not outer and unpacked(1) == 2
    assert unpacked.__code__.co_filename == outer.__code__.co_filename == __file__
    try:
        unpacked(-1)
    except ValueError as error:
        quoted = "".join(traceback.format_exception(error))
    assert 'raise ValueError("below zero")' in quoted and "return inner()" in quoted


def test_what_surrounds_a_function_comes_along() -> None:
    step = [3]
    assert cloudpickle.loads(pack(lambda number: number + step[0]))(4) == 7
