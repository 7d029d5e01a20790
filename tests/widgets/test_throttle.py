"""The live view costs a bounded share of the time, whatever drawing costs."""

from __future__ import annotations

import time
from typing import Any

import pytest
from support.synthetic_feed import SyntheticFeed

from labkit.widgets import live
from labkit.widgets.throttle import Throttle


def test_a_throttle_keeps_its_share_between_shortest_and_longest() -> None:
    now = 0.0

    def turns(cost: float, until: float = 60.0) -> int:
        nonlocal now
        now, count = 0.0, 0
        throttle = Throttle(share=0.01, shortest=0.1, longest=0.5, clock=lambda: now)
        while now < until:
            if throttle.due():
                started, count = now, count + 1
                now += cost
                throttle.done(started)
            now += 0.001
        return count

    assert turns(cost=0.0) == pytest.approx(600, rel=0.02)  # never faster than `shortest`
    assert turns(cost=0.002) * 0.002 == pytest.approx(0.01 * 60, rel=0.02)  # the share
    assert turns(cost=0.1) == pytest.approx(120, rel=0.02)  # never slower than `longest`


def test_a_table_that_is_dear_is_made_seldom() -> None:
    class Dear(SyntheticFeed):
        def table(self) -> Any:
            time.sleep(0.05)
            return super().table()

    feed = Dear(rounds=200, seconds=0.005)
    live(feed).wait()
    assert feed.tables_asked <= feed.rows_asked // 2
