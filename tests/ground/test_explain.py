"""Errors of other code are said in our words; ours, and those that name themselves, are left."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from labkit import models
from labkit.checks import device_of, explaining, form


def test_what_failed_is_named_with_shapes_and_the_cause_is_kept() -> None:
    x = torch.zeros(2, 3)
    with (
        pytest.raises(
            ValueError, match=r"^a pass failed on float32 \(2, 3\): RuntimeError: mat1"
        ) as e,
        explaining("a pass", x),
    ):
        nn.Linear(4, 1)(x)
    assert isinstance(e.value.__cause__, RuntimeError)


def test_a_call_that_fails_in_our_own_code_is_not_ours() -> None:
    attention = models.transformer(10, 8, 1, 2, 4).blocks[0].attention
    with pytest.raises(ValueError, match="^a pass failed on"), explaining("a pass", torch.zeros(3)):
        attention(torch.zeros(3))


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("full"), KeyboardInterrupt(), OSError("x"), AssertionError("x")],
)
def test_what_says_itself_what_it_is_comes_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, explaining("a pass"):
        raise error
    assert caught.value is error


def test_ours_come_as_they_are() -> None:
    with pytest.raises(ValueError, match="^tokens must be at most 4 long"), explaining("a pass"):
        models.transformer(10, 8, 1, 2, 4)(torch.zeros(1, 5, dtype=torch.long))


def test_notes_of_the_error_are_told() -> None:
    def noted() -> None:
        try:
            F.linear(torch.zeros(2, 3), torch.zeros(1, 4))
        except RuntimeError as error:
            error.add_note("while timing 'a'")
            raise

    with pytest.raises(ValueError, match="while timing 'a'"), explaining("a pass"):
        noted()


def test_forms_of_nested_batches() -> None:
    batch = {"a": torch.zeros(2, 3), "b": [torch.zeros(1).long()] * 9}, None
    ids = "int64 (1,)"
    assert form(batch) == (
        f"({{'a': float32 (2, 3), 'b': ({ids}, {ids}, {ids}, {ids}, …)}}, NoneType)"
    )


@pytest.mark.parametrize("device", ["tpu", "cuda:99", 77])
def test_devices_are_those_of_this_machine(device: str) -> None:
    with pytest.raises(ValueError, match="device must be one of this machine, got"):
        device_of(device)
    assert device_of("cpu") == torch.device("cpu")
