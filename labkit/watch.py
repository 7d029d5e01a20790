"""What can be watched while it works, and what there is to see of it. Nothing here needs a display.

A live view knows nothing of races or training: it asks a feed to do one unit of work, then asks
what is new. So anything that can be cut into short units can be watched, paused and stopped, and
the view can be tested with a feed that trains nothing. A unit should take at most a tenth of a
second, because Pause and Stop answer between two units.

Whatever gives results one by one, such as a generator, is watched by saying where they are drawn:

    scan = watch(losses_of_many_widths(), panel, lambda found: {"loss": (found.width, found.loss)})

To make a type of your own watchable, register what makes a feed of it:

    @feed.register
    def _(thing: MyTraining) -> Feed:
        return MyFeed(thing)
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import asdict, dataclass
from functools import singledispatch
from time import perf_counter
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy
from numpy.typing import NDArray

from labkit.table import Table

FloatArray = NDArray[numpy.float32]
Result = TypeVar("Result")


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
        higher_is_better: of y, in a scatter: where its front lies.

    Raises:
        ValueError: no series, two of one name, not one or two x_labels, or another kind.
    """

    title: str
    y_label: str
    x_labels: tuple[str, ...]
    series: tuple[str, ...]
    kind: Literal["lines", "scatter", "stacked", "lane"] = "lines"
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        if not self.series or len(set(self.series)) != len(self.series):
            raise ValueError(f"series must be different names, at least one, got {self.series!r}")
        if not len(set(self.x_labels)) == len(self.x_labels) in (1, 2):
            raise ValueError(f"x_labels must hold one or two labels, got {self.x_labels!r}")

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


Drawn = Mapping[str, tuple[float, ...]] | Iterable[Point]
"""What is drawn of a result: {series: (x, y)}, or (x, y, x2) where there are two x labels. Points
are needed where two panels have series of one name."""


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
        f"{type(thing).__name__}; make a Feed of an iterable with labkit.watch.watch"
    )


class Watched(Generic[Result]):
    """A feed of results that come one by one; see `watch`, which makes it.

    Attributes:
        results: all that came so far, in order.
    """

    def __init__(
        self,
        results: Iterable[Result],
        panels: Sequence[Panel],
        point: Callable[[Result], Drawn],
        total: int | None,
        each: str,
        table: Callable[[Sequence[Result]], Table | None] | None,
    ) -> None:
        self.panels = panels
        self.results: list[Result] = []
        self._iterator, self._point, self._table = iter(results), point, table
        self._total, self._each = total, each
        self._places = {
            name: (panel, series)
            for panel, axes in reversed(list(enumerate(panels)))  # of two, the first one holds
            for series, name in enumerate(axes.series)
        }
        self._known = {(i, j) for i, axes in enumerate(panels) for j in range(len(axes.series))}
        self._new: list[Point] = []
        self._seconds = 0.0

    def advance(self) -> bool:
        """Wait for one more result, and note its points.

        Raises:
            ValueError: `point` gave a series that no panel has.
        """
        began = perf_counter()
        try:
            result = next(self._iterator)
        except StopIteration:
            return False
        self._seconds += perf_counter() - began
        self.results.append(result)
        self._new += self._points(self._point(result))
        return True

    def _points(self, drawn: Drawn) -> Iterable[Point]:
        if not isinstance(drawn, Mapping):
            points = tuple(drawn)
            if wrong := {point[:2] for point in points} - self._known:
                raise ValueError(f"point gave (panel, series) {sorted(wrong)}, which do not exist")
            return points
        for name, place in drawn.items():
            if len(place) not in (2, 3):
                raise ValueError(f"point gave {place!r} for {name!r}, not (x, y) or (x, y, x2)")
            if name not in self._places:
                known = ", ".join(self._places)
                raise ValueError(f"point gave the series {name!r}, which no panel has: {known}")
        return [Point(*self._places[name], *place) for name, place in drawn.items()]

    def rows(self) -> Sequence[Point]:
        """Return the points that are new since the last call."""
        new, self._new = self._new, []
        return new

    def status(self) -> Status:
        """Return how many results there are; the minutes left take all for equally long."""
        done, total = len(self.results), self._total
        if total is None:
            return Status(None, note=f"{done:,} {self._each} so far.")
        left = max(0, total - done) * self._seconds / done / 60 if done else None
        progress = min(1.0, done / total) if total else 1.0  # `total` may have been a guess
        return Status(progress, left, f"{done:,} of {total:,} {self._each}.")

    def table(self) -> Table | None:
        """Return the table of the results so far, if `watch` was told how to make one."""
        return self._table(self.results) if self._table and self.results else None


def watch(
    results: Iterable[Result],
    panels: Panel | Sequence[Panel],
    point: Callable[[Result], Drawn],
    *,
    total: int | None = None,
    each: str = "results",
    table: Callable[[Sequence[Result]], Table | None] | None = None,
) -> Watched[Result]:
    """Return a feed of anything that gives results one by one, so that `live` can show it.

    The experiment stays a plain iterable that knows nothing of being watched. Each result is one
    unit of work: Pause and Stop answer as quickly as the iterable gives the next one.

    Args:
        results: gives each result as soon as it is known, such as a generator.
        panels: the axes.
        point: result -> what is drawn of it, often {name of a series: (x, y)}; see `Drawn`. It may
            be nothing, for example where only the mean of several results is drawn.
        total: how many results there will be; the length of `results` when left out, if it has one.
        each: what results are called, in the plural, such as "models".
        table: all results so far -> running figures.

    Raises:
        TypeError: `panels` holds no Panel or something else.
        ValueError: `total` is negative.
    """
    axes = (panels,) if isinstance(panels, Panel) else tuple(panels)
    if not axes or not all(isinstance(panel, Panel) for panel in axes):
        kinds = [type(panel).__name__ for panel in axes]
        raise TypeError(f"panels must be a Panel or several, got {kinds}")
    if total is None and isinstance(results, Sized):
        total = len(results)
    if total is not None and total < 0:
        raise ValueError(f"total must be 0 or more, got {total}")
    return Watched(results, axes, point, total, each, table)


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
