"""Values that nothing can be measured with are refused by name."""

import math
from functools import partial
from typing import Any

import numpy
import pytest
import torch
from torch.nn import functional as F

from labkit import models, units
from labkit.compare.guess import fate_of
from labkit.compare.quantity import LATENCY
from labkit.compare.verdict import Verdict
from labkit.measure import (
    Estimate,
    Timing,
    ceiling,
    flops,
    interleave,
    latencies,
    order_of_round,
    peak_memory,
    saved_bytes,
    step_flops,
)
from labkit.measure.formats import FORMATS
from labkit.measure.gradients import fates, gradient_magnitudes

NET, X, Y = models.mlp(16, 8, 10), torch.randn(8, 16), torch.arange(8)
MISFIT = r"a pass of the model failed on float32 \(8, 3\), int64 \(8,\): RuntimeError: mat1"

REFUSED: list[tuple[Any, str]] = [
    (partial(order_of_round, ["a", "a"], 0), r"names must be different, .* got \['a', 'a'\]"),
    (partial(order_of_round, [], 0), "names must be different, at least one"),
    (partial(Timing, "a", ()), "seconds of 'a' is empty"),
    (partial(fates, X * math.nan), "magnitudes must be positive numbers"),
    (partial(fates, -X.abs()), "magnitudes must be positive numbers"),
    (partial(fates, X[:0]), "magnitudes must be positive numbers, at least one"),
    (partial(FORMATS["fp16"].fate, math.nan), "value must be a number, got nan"),
    (
        partial(interleave, {"a": list}, device="tpu"),
        "device must be one of this machine, got 'tpu'",
    ),
    (partial(interleave, {"a": list}, warmup=-1), "warmup must be a whole number of at least 0"),
    (partial(ceiling, device="tpu"), "device must be one of this machine"),
    (partial(peak_memory, list, device="tpu"), "device must be one of this machine"),
    (partial(latencies, {"a": NET}, X[:, :3], 3), r"a forward pass failed on float32 \(8, 3\)"),
    (partial(step_flops, NET, X[:, :3], Y), MISFIT),
    (partial(saved_bytes, NET, F.cross_entropy, X[:, :3], Y), MISFIT),
    (partial(gradient_magnitudes, NET, F.cross_entropy, X[:, :3], Y), MISFIT),
    (partial(step_flops, NET, X, Y, partial(F.cross_entropy, reduction="none")), "scalar"),
    (
        partial(fate_of, math.nan, Verdict("a", "b", LATENCY, Estimate(2.0, 1.5, 2.5, 9))),
        "guess must be a finite number, got nan",
    ),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_numbers_of_numpy_are_as_good() -> None:
    timings = interleave({"a": list}, rounds=numpy.int64(3), warmup=numpy.int32(0))
    assert timings["a"].n == 3
    assert flops(lambda: NET(X)) > 0


def test_what_is_no_number_is_shown_as_such() -> None:
    assert units.duration(math.nan) == "nan ns"
    assert units.size(math.nan) == "nan bytes"
