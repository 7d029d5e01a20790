"""Data that cannot be learned from are refused where they come in, by name."""

import math
from typing import Any

import numpy
import pytest
import torch

from labkit import data
from labkit.data import Batches, ImageData, TextBatches, speeches

IM, LB = torch.zeros(20, 1, 4, 4, dtype=torch.uint8), torch.arange(20) % 10
TOKENS = torch.arange(20)


def images(**changes: Any) -> ImageData:
    values = {
        "train_images": IM, "train_labels": LB, "test_images": IM, "test_labels": LB,
        "classes": tuple("abcdefghij"), "mean": 0.5, "std": 0.25,
    }  # fmt: skip
    return ImageData("some", **{**values, **changes})


REFUSED: list[tuple[Any, str]] = [
    (lambda: Batches(IM, LB, 10, std=0.0), "mean must be a number and std a positive one"),
    (lambda: Batches(IM, LB, 10, std=math.nan), "mean must be a number and std a positive one"),
    (lambda: Batches(IM, LB, 10, std=-1.0), "mean must be a number and std a positive one"),
    (lambda: Batches(IM, LB, 10, mean=math.inf), "mean must be a number"),
    (lambda: Batches(IM, LB[:, None], 10), r"labels must be int64 \(n,\), got int64 \(20, 1\)"),
    (lambda: Batches(IM, LB.float(), 10), r"labels must be int64 \(n,\), got float32 \(20,\)"),
    (lambda: Batches(IM, LB, 10, seed=-1), "seed must be a whole number from 0"),
    (lambda: Batches(IM, LB, 10, seed=2**60), "seed must be a whole number from 0"),
    (lambda: Batches(IM, LB, 10, device="tpu"), "device must be one of this machine, got 'tpu'"),
    (lambda: images(train_labels=LB.float() + 0.7), r"train_labels must be int64 \(n,\)"),
    (lambda: images(test_labels=LB[:, None]), r"test_labels must be int64 \(n,\)"),
    (lambda: images(test_images=IM.float()), "test_images must be uint8"),
    (lambda: images(train_images=IM[:3]), "differ in number: 3 and 20"),
    (lambda: images(test_labels=LB + 1), "test_labels must lie in 0 … 9"),
    (lambda: images(std=0.0).batches(10), "std a positive one"),
    (lambda: images(mean=math.nan).test_batches(), "mean must be a number"),
    (
        lambda: TextBatches(torch.zeros(20, 20, dtype=torch.long), 1, 4),
        r"tokens must be int64 \(n,",
    ),
    (lambda: TextBatches(TOKENS.float(), 1, 4), r"tokens must be int64 \(n,\), got float32"),
    (lambda: data.fashion(10, 10, seed=-1), "seed must be a whole number from 0"),
    (lambda: data.fashion(10, 10, seed=2**64), "seed must be a whole number from 0"),
    (lambda: data.fashion(numpy.int64(11), 10), "train must be a multiple of 10"),
    (lambda: speeches(200_000).decode([10**9]), "tokens must lie in 0 … 4095, got"),
    (lambda: speeches(200_000).decode([-1]), "tokens must lie in"),
    (lambda: speeches(200_000).encode("\ud800"), "encoding '.ud800' failed: "),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_is_refused(make: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_numbers_of_numpy_are_as_good() -> None:
    ours = Batches(IM, LB, numpy.int64(5), seed=numpy.int32(3))
    plain = Batches(IM, LB, 5, seed=3)
    assert all(torch.equal(a[1], b[1]) for a, b in zip(ours, plain, strict=True))
    assert len(data.fashion(numpy.int64(10), numpy.int64(10)).train_labels) == 10
