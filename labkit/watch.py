"""What can be watched while it works, and what there is to see of it. Nothing here needs a display.

A live view knows nothing of races or training: it asks a feed to do one unit of work, then asks
what is new. So anything that can be cut into short units can be watched, paused and stopped, and
the view can be tested with a feed that trains nothing. A unit should take at most a tenth of a
second, because Pause and Stop answer between two units.

To make a type of your own watchable, write its feed and register it:

    @feed.register
    def _(thing: MyTraining) -> Feed:
        return MyFeed(thing)
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import singledispatch
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy
from numpy.typing import NDArray

from labkit.table import Table

FloatArray: TypeAlias = NDArray[numpy.float32]


@dataclass(frozen=True)
class Panel:
    """One set of axes.

    Attributes:
        title: short, in plain words.
        y_label: with the unit in brackets.
        x_labels: one or two alternatives to plot against, such as ("steps", "training seconds").
        series: names of the lines or bands, in order.
        kind: "lines"; "stacked" for bands that add up; "lane" for such bands in a low strip, of
            which a view shows several with one scale; or "scatter" for one point a series with
            its intervals: the last three rows of a series are its value, low and high, in x and y.

    Raises:
        ValueError: no series, two of one name, not one or two x_labels, or another kind.
    """

    title: str
    y_label: str
    x_labels: tuple[str, ...]
    series: tuple[str, ...]
    kind: Literal["lines", "scatter", "stacked", "lane"] = "lines"

    def __post_init__(self) -> None:
        if not self.series or len(set(self.series)) != len(self.series):
            raise ValueError(f"series must be different names, at least one, got {self.series!r}")
        if len(self.x_labels) not in (1, 2):
            raise ValueError(f"x_labels must hold one or two labels, got {self.x_labels!r}")
        if self.kind not in ("lines", "scatter", "stacked", "lane"):
            kinds = '"lines", "scatter", "stacked" or "lane"'
            raise ValueError(f"kind must be {kinds}, got {self.kind!r}")

    def as_dict(self) -> dict[str, Any]:
        """Return the panel for a JSON message."""
        return asdict(self)


class Point(NamedTuple):
    """One new point of a curve. With one x alternative, leave `x2` away."""

    panel: int
    series: int
    x: float
    y: float
    x2: float = 0.0


@dataclass(frozen=True)
class Status:
    """How far the work is.

    Attributes:
        progress: from 0 to 1, or None if nobody knows how much there is to do.
        minutes_left: an estimate, or None while there is none.
        note: where the work stands, in a few words such as "Seed 2 of 3, round 40 of 281."
    """

    progress: float | None
    minutes_left: float | None = None
    note: str = ""


@runtime_checkable
class Feed(Protocol):
    """Work in small units, and what there is to see of it. All methods run in one thread."""

    @property
    def panels(self) -> Sequence[Panel]:
        """The axes; they stay the same."""

    def advance(self) -> bool:
        """Do one unit of work. Return False when there is nothing left to do."""

    def rows(self) -> Sequence[Point]:
        """Return the points that are new since the last call."""

    def status(self) -> Status:
        """Return how far the work is. It is asked with every update."""

    def table(self) -> Table | None:
        """Return the running figures, if any. It may be costly: it is asked seldom enough."""


@runtime_checkable
class ProcessFeed(Feed, Protocol):
    """A feed whose work goes on in other processes, also between two calls of `advance`."""

    def hold(self) -> None:
        """Hold the work: a pause has begun."""

    def go_on(self) -> None:
        """Go on after `hold`."""

    def close(self) -> None:
        """End the processes at once: nobody looks on any more, whatever the reason."""


@singledispatch
def feed(thing: object) -> Feed:
    """Return the feed of `thing`: itself if it is one, else what its type has registered.

    Raises:
        TypeError: nothing is known about the type.
    """
    if isinstance(thing, Feed):
        return thing
    raise TypeError(
        "live() can show a Race, a Tradeoff, a Training, Ranks or a Feed, got "
        f"{type(thing).__name__}; register a feed for this type with labkit.watch.feed.register"
    )


class History:
    """All points so far, as float32 rows of (panel, series, x, x2, y).

    The same bytes go to the browser (the new ones with each update, all of them when the page is
    loaded again) and into the final picture, so the two cannot differ.
    """

    FLOATS = 5

    def __init__(self) -> None:
        self.data = bytearray()

    def __len__(self) -> int:
        return len(self.data) // (4 * self.FLOATS)

    def extend(self, points: Sequence[Point]) -> bytes:
        """Append `points` and return their bytes (little-endian on every machine)."""
        rows = [(p.panel, p.series, p.x, p.x2, p.y) for p in points]
        new = numpy.array(rows, dtype="<f4").tobytes()
        self.data += new
        return new

    def curve(self, panel: int, series: int, alternative: int = 0) -> tuple[FloatArray, FloatArray]:
        """Return x and y of one curve, plotted against x label number `alternative`."""
        table = numpy.frombuffer(bytes(self.data), dtype="<f4").reshape(-1, self.FLOATS)
        mine = table[(table[:, 0] == panel) & (table[:, 1] == series)]
        return mine[:, 2 + alternative], mine[:, 4]
