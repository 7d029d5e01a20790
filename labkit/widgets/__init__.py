"""What moves in the lab's notebooks, and how its pictures look."""

from labkit.watch import Feed, Panel, Point, Status, feed, watch
from labkit.widgets.controls import Choice, Slider
from labkit.widgets.knob import Knob, knob
from labkit.widgets.live import LiveRun, live
from labkit.widgets.style import Picture, figure, label_axes, label_lines, line_style, picture, show

__all__ = [
    "Choice",
    "Feed",
    "Knob",
    "LiveRun",
    "Panel",
    "Picture",
    "Point",
    "Slider",
    "Status",
    "feed",
    "figure",
    "knob",
    "label_axes",
    "label_lines",
    "line_style",
    "live",
    "picture",
    "show",
    "watch",
]
