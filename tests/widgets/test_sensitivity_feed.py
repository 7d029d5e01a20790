"""The live view of a sensitivity scan: its points, its progress, its table."""

from __future__ import annotations

import pytest
import torch

from labkit import models
from labkit.compression.prune import channel_graph, magnitude_scores
from labkit.facts import threads
from labkit.watch import Feed, Point
from labkit.widgets import live
from labkit.widgets.sensitivity_feed import SensitivityFeed


def size(model):
    """A stand-in for accuracy that is known beforehand: the share of 2,000 parameters."""
    return sum(p.numel() for p in model.parameters()) / 2000


@pytest.fixture
def scan():
    model = models.mlp(inputs=8, hidden=16, classes=4)
    graph = channel_graph(model, torch.ones(1, 8))
    return SensitivityFeed(model, graph, magnitude_scores(graph), size, ratios=(0.25, 0.5))


@pytest.fixture
def convnet_scan():
    model = models.convnet(width=4).eval()
    graph = channel_graph(model, torch.ones(1, 1, 12, 12))
    return SensitivityFeed(model, graph, magnitude_scores(graph), size)


def test_points_of_a_group_start_at_the_whole_model(scan):
    assert isinstance(scan, Feed)
    assert scan.panels[0].series == ("0",)
    whole = (8 * 16 + 16 + 16 * 4 + 4) / 20  # percent of 2,000
    assert scan.advance()
    assert scan.rows() == [
        Point(0, 0, 0.0, pytest.approx(whole)),
        Point(0, 0, 25.0, pytest.approx(whole - 4 * 13 / 20)),
    ]
    assert scan.rows() == []
    assert scan.advance()
    assert scan.rows() == [Point(0, 0, 50.0, pytest.approx(whole - 8 * 13 / 20))]
    assert not scan.advance()
    assert [found.kept for found in scan.found] == [12, 8]


def test_x_is_what_is_gone_not_what_was_asked_for():
    """Half of three channels is no whole number."""
    model = models.convnet(width=3).eval()
    graph = channel_graph(model, torch.ones(1, 1, 12, 12))
    scan = SensitivityFeed(model, graph, magnitude_scores(graph), size, ratios=(0.5,))
    scan.advance()
    assert scan.rows()[-1].x == pytest.approx(200 / 3)


def test_status_counts_and_estimates(scan):
    status = scan.status()
    assert (status.progress, status.minutes_left) == (0, None)
    scan.advance()
    status = scan.status()
    assert status.progress == 0.5 and status.minutes_left >= 0 and "1 of 2" in status.note
    scan.advance()
    assert scan.status().progress == 1 and scan.status().minutes_left == 0


def test_table_has_a_row_for_each_group_and_fills_what_is_missing(convnet_scan):
    assert convnet_scan.table() is None
    for _ in range(4):  # all of the first group, the first ratio of the second
        convnet_scan.advance()
    table = convnet_scan.table()
    assert table.headers == ("group", "channels", "25% gone", "50% gone", "75% gone")
    first, second = table.rows
    assert first[0] == "blocks.0.conv1" and first[1] == "4"
    lost = [100 * (f.before - f.value) for f in convnet_scan.found]
    assert [float(cell) for cell in first[2:]] == pytest.approx(lost[:3], abs=0.06)
    assert second[3:] == ("–", "–") and float(second[2]) == pytest.approx(lost[3], abs=0.06)


def test_live_runs_to_the_end_and_stops_when_asked(convnet_scan, scan):
    with threads(1):
        run = live(convnet_scan)
        run.wait()
        assert run.state == "finished" and len(convnet_scan.found) == 18
        stopped = live(scan)
        stopped.stop()
        stopped.wait()
    assert len(scan.found) <= 2
    assert "blocks.2.conv2" in run.picture.alt


def test_nothing_to_scan_is_refused():
    model = models.mlp()
    graph = channel_graph(model, torch.ones(1, 64))
    with pytest.raises(ValueError, match="got 0 groups and 3 ratios"):
        SensitivityFeed(model, graph, {}, size)
    with pytest.raises(ValueError, match="got 1 groups and 0 ratios"):
        SensitivityFeed(model, graph, magnitude_scores(graph), size, ratios=())
