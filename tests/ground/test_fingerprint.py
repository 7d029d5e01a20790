"""Fingerprints: equal where the values are, different wherever anything in them is."""

import copy
import subprocess
import sys
from functools import partial

import pytest
import torch
from support.common import tiny_data
from torch import nn

from labkit import models
from labkit.data import ImageData
from labkit.fingerprint import fingerprint
from labkit.training import average_weights, classify, cosine, distill


def other_pixels() -> ImageData:
    data = tiny_data()
    images = data.train_images.clone()
    images[3, 0, 1, 2] ^= 1
    return ImageData(
        "tiny", images, data.train_labels, images, data.train_labels, data.classes, 0.5, 0.25
    )


def net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return models.mlp().eval()


def reader(heads: int) -> nn.Module:
    torch.manual_seed(0)
    return models.transformer(5, width=8, depth=1, heads=heads, context=4)


SAME = {
    "numbers": (lambda: 1.5, lambda: 3 / 2),
    "partials": (lambda: partial(models.convnet, 8), lambda: partial(models.convnet, 8)),
    "functions": (lambda: models.convnet, lambda: models.convnet),
    "values": (lambda: cosine(0.1), lambda: cosine(warmup=0.1)),
    "tensors": (lambda: torch.arange(6).view(2, 3), lambda: torch.arange(6).view(3, 2).view(2, 3)),
    "data": (tiny_data, tiny_data),
    "teachers": (lambda: distill(classify(), net(1)), lambda: distill(classify(), net(1))),
    "stacks": (
        lambda: (average_weights(), 1),
        lambda: (average_weights(), 1),
    ),
    "formats": (lambda: torch.channels_last, lambda: torch.channels_last),
    "sets": (lambda: {"a", "b", "c"}, lambda: {"c", "b", "a"}),
}
DIFFERENT = {
    "settings of a teacher": (lambda: reader(heads=4), lambda: reader(heads=2)),
    "modes": (lambda: net(1), lambda: net(1).train()),
    "type": (lambda: 1, lambda: 1.0),
    "truth": (lambda: 1, lambda: True),
    "positional widths": (lambda: partial(models.convnet, 8), lambda: partial(models.convnet, 32)),
    "position or name": (lambda: partial(models.mlp, 8), lambda: partial(models.mlp, hidden=8)),
    "lambdas": (lambda: lambda: 1, lambda: lambda: 1),
    "functions": (lambda: models.convnet, lambda: models.mlp),
    "pixels": (tiny_data, other_pixels),
    "values": (lambda: cosine(0.1), lambda: cosine(0.2)),
    "kinds": (lambda: average_weights(0.5), lambda: classify(0.5)),
    "teachers": (lambda: distill(classify(), net(1)), lambda: distill(classify(), net(2))),
    "shapes": (lambda: torch.zeros(2, 3), lambda: torch.zeros(3, 2)),
    "dtypes": (lambda: torch.zeros(4), lambda: torch.zeros(4, dtype=torch.int32)),
    "objects": (object, object),
}


@pytest.mark.parametrize("name", SAME)
def test_equal_values_have_one(name: str) -> None:
    first, second = (make() for make in SAME[name])
    assert fingerprint(first) == fingerprint(second)


@pytest.mark.parametrize("name", DIFFERENT)
def test_different_values_have_two(name: str) -> None:
    first, second = (make() for make in DIFFERENT[name])
    assert fingerprint(first) != fingerprint(second)
    assert fingerprint(first) == fingerprint(first)


def test_is_the_same_in_another_process_where_names_lead_to_the_value() -> None:
    known, unknown = partial(models.convnet, 8), lambda: models.convnet(8)
    code = (
        "from functools import partial\nfrom labkit import models\n"
        "from labkit.fingerprint import fingerprint\n"
        "print(fingerprint(partial(models.convnet, 8)))\n"
    )
    run = [sys.executable, "-c", code]
    there = subprocess.run(run, capture_output=True, text=True, check=True, timeout=120).stdout
    assert there.strip() == fingerprint(known)
    assert "known to this process alone" in fingerprint(unknown)


def test_a_module_counts_by_its_weights() -> None:
    model = models.mlp()
    twin = copy.deepcopy(model)
    assert fingerprint(model) == fingerprint(twin)
    with torch.no_grad():
        twin[2].bias[0] += 1
    assert fingerprint(model) != fingerprint(twin)


def test_an_address_is_never_given_twice() -> None:
    assert fingerprint(lambda: 1) != fingerprint(lambda: 2)  # each is gone when it is asked
