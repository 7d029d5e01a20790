"""What one training of a race leaves behind."""

from __future__ import annotations

import pytest

from labkit.compare.record import Record


@pytest.mark.parametrize(
    ("profiled", "expected"),
    [
        (None, [1.0, 9.0, 2.0, 3.0]),
        (1, [1.0, 0.0, 4.0, 3.0]),  # the clock stands still, and the next step counts twice
        (3, [1.0, 9.0, 2.0, 0.0]),
        (4, [1.0, 9.0, 2.0, 3.0]),  # a step that did not come
    ],
)
def test_the_step_that_the_profiler_slowed_is_not_on_the_clock(
    profiled: int | None, expected: list[float]
) -> None:
    record = Record(0, rounds=[0, 1, 2, 3], seconds=[1.0, 9.0, 2.0, 3.0], profiled=profiled)
    assert record.training_seconds() == expected
