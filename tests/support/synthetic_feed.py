"""A feed that trains nothing: smooth made-up curves, at a pace that a test chooses."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from labkit.table import Table
from labkit.watch import Panel, Point, Status

STEPS = ("steps", "training seconds")
TABLE = Table(
    ("arm", "ms a step", "speed", "accuracy %"),
    (
        ("float32", "36.1 (35.9 to 36.4)", "1 (baseline)", "87.9"),
        ("bfloat16", "46.9 (46.5 to 47.2)", "0.77x (0.75 to 0.79)", "87.1"),
    ),
    note="In brackets: 95 % intervals.",
)


class SyntheticFeed:
    """Two arms, each with a loss at every round and an accuracy at every tenth.

    Args:
        rounds: units of work there are.
        seconds: each unit takes (asleep, so that tests do not fight for cores).
        fail_at: the round that raises, if any.
    """

    arms = ("float32", "bfloat16")

    def __init__(self, rounds: int = 200, seconds: float = 0.0, fail_at: int | None = None) -> None:
        self.panels = (
            Panel("Training loss", "cross-entropy (nats)", STEPS, self.arms),
            Panel("Test accuracy", "correct (%)", STEPS, self.arms),
        )
        self.rounds, self.seconds, self.fail_at = rounds, seconds, fail_at
        self.done = 0
        self.rows_asked, self.tables_asked = 0, 0
        self._new: list[Point] = []

    def advance(self) -> bool:
        if self.done == self.rounds:
            return False
        if self.done == self.fail_at:
            raise RuntimeError("the loss is not a number")
        time.sleep(self.seconds)
        self.done += 1
        for arm in range(len(self.arms)):
            seconds = self.done * 0.036 * (1 + 0.3 * arm)
            wave = 0.06 * math.sin(0.9 * self.done + arm) * math.exp(-self.done / 150)
            loss = 0.38 + 0.04 * arm + 1.9 * math.exp(-self.done / 40) + wave
            self._new.append(Point(0, arm, self.done, loss, seconds))
            if self.done % 10 == 0:
                correct = 88 - arm - 60 * math.exp(-self.done / 35)
                self._new.append(Point(1, arm, self.done, correct, seconds))
        return True

    def rows(self) -> Sequence[Point]:
        self.rows_asked += 1
        new, self._new = self._new, []
        return new

    def status(self) -> Status:
        left = (self.rounds - self.done) * max(self.seconds, 1e-4) / 60
        note = f"Round {self.done} of {self.rounds}."
        return Status(self.done / self.rounds, left if self.done else None, note)

    def table(self) -> Table | None:
        self.tables_asked += 1
        return TABLE if self.done else None


class StackedFeed(SyntheticFeed):
    """One stacked panel with a single x alternative."""

    parts = ("data", "forward", "backward", "optimizer")

    def __init__(self, rounds: int = 200, seconds: float = 0.0) -> None:
        super().__init__(rounds, seconds)
        panel = Panel("Where a step's time goes", "time (ms)", ("steps",), self.parts, "stacked")
        self.panels = (panel,)  # type: ignore[assignment]

    def advance(self) -> bool:
        if self.done == self.rounds:
            return False
        time.sleep(self.seconds)
        self.done += 1
        for part, base in enumerate((1.6, 11.0, 19.0, 2.1)):
            wave = 1 + 0.12 * math.sin(0.5 * self.done + part)
            self._new.append(Point(0, part, self.done, base * wave))
        return True
