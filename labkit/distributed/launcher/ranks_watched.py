"""What there is to see of many processes: the loss of every rank, and a lane for each of them.

A lane is the time of a step, cut into computing and waiting for the others. All lanes have one
scale, so a look tells whether the work is shared fairly: in a collective everybody waits for the
slowest, which is the rank that waits least. Single steps jitter, so a point of a long run is the
mean of a few; the first steps, which load data and build kernels, are left out, and so is the one
that a pause made long.
"""

from collections.abc import Sequence
from statistics import median

from labkit.compare.record import WARMUP_ROUNDS
from labkit.distributed.launcher.launch import Ranks
from labkit.distributed.launcher.world import RankStep
from labkit.measure.running_average import RunningAverage
from labkit.table import Table
from labkit.watch import Panel, Point, Status, feed

LOSS = 0
"""Number of the panel with the loss; the lanes follow it."""
COMPUTING, WAITING = 0, 1
POINTS = 100
"""Points of a line or band, about, as long as a point is the mean of few reports."""
FEWEST, MOST = 5, 20
"""Reports in a point when nobody says how many steps there will be, and at most."""
SECONDS_A_LOOK = 0.1
HEADERS = ("rank", "step", "loss", "MB sent", "ms a step", "waiting %")


class RanksFeed:
    """Ranks under way. What they tell in a tenth of a second is a unit of work."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        names = [f"rank {rank}" for rank in range(ranks.nprocs)]
        loss = Panel("Loss", "of each rank, smoothed", ("steps",), tuple(names))
        bands = ("computing", "waiting")
        lanes = (Panel(n.capitalize(), "ms a step", ("steps",), bands, "lane") for n in names)
        self.panels = (loss, *lanes)
        self._lanes = [_Lane(rank) for rank in range(ranks.nprocs)]

    def advance(self) -> bool:
        """Take in what the ranks tell.

        Raises:
            RankError: a rank failed; all have ended by then.
        """
        if not self.ranks.running:
            return False
        for step in self.ranks.poll(SECONDS_A_LOOK):
            self._lanes[step.rank].take(step)
        return True

    def hold(self) -> None:
        """Hold the ranks at their next `tell`."""
        self.ranks.hold()

    def go_on(self) -> None:
        """Let them go on."""
        for lane in self._lanes:
            lane.skip_one()
        self.ranks.go_on()

    def close(self) -> None:
        """End the ranks at once."""
        self.ranks.close()

    def rows(self) -> Sequence[Point]:
        """Return the points that are new."""
        return [point for lane in self._lanes for point in lane.new_points()]

    def status(self) -> Status:
        """Return how far the slowest rank is; the progress is known if a rank says how much."""
        done = min(lane.step for lane in self._lanes)
        steps = max(lane.steps for lane in self._lanes)
        if not steps:
            return Status(None, note=f"Step {done}." if done else "")
        seconds = max(lane.seconds_a_step() for lane in self._lanes)
        left = (steps - done) * seconds / 60 if seconds else None
        return Status(done / steps, left, f"Step {done} of {steps}.")

    def table(self) -> Table | None:
        """Return the figures of each rank so far."""
        if not any(lane.step for lane in self._lanes):
            return None
        return Table(HEADERS, tuple(lane.row() for lane in self._lanes))


class _Lane:
    """What one rank has told."""

    def __init__(self, rank: int) -> None:
        self.rank, self.step, self.steps, self.bytes_sent = rank, 0, 0, 0
        self.parts: list[tuple[float, float]] = []  # seconds of a step: computing, waiting
        self._loss = RunningAverage()
        self._told, self._skip = 0, True
        self._block: list[tuple[float, float]] = []
        self._new: list[Point] = []

    def take(self, told: RankStep) -> None:
        """Add what was told, which may stand for several steps."""
        passed = max(1, told.step + 1 - self.step)
        self.step, self.steps = told.step + 1, told.steps or self.steps
        self.bytes_sent += told.bytes_sent
        self._loss.add(told.loss)
        if self._told % self._size() == 0:
            self._new.append(Point(LOSS, self.rank, self.step, self._loss.value))
        self._told += 1
        if not self._skip and told.step >= WARMUP_ROUNDS:
            waiting = min(told.waiting, told.seconds)
            self._add((told.seconds - waiting) / passed, waiting / passed)
        self._skip = False

    def skip_one(self) -> None:
        """Leave out the time of what is told next."""
        self._skip = True

    def _add(self, computing: float, waiting: float) -> None:
        self.parts.append((computing, waiting))
        self._block.append((computing, waiting))
        if len(self._block) >= self._size():
            for band, seconds in enumerate(zip(*self._block, strict=True)):
                mean = 1e3 * sum(seconds) / len(seconds)
                self._new.append(Point(LOSS + 1 + self.rank, band, self.step, mean))
            self._block.clear()

    def _size(self) -> int:
        return min(MOST, max(1, self.steps // POINTS)) if self.steps else FEWEST

    def new_points(self) -> list[Point]:
        """Return the points that are new since the last call."""
        new, self._new = self._new, []
        return new

    def seconds_a_step(self) -> float:
        """Return the median so far, or 0."""
        return median(map(sum, self.parts)) if self.parts else 0.0

    def row(self) -> tuple[str, ...]:
        """Return this rank's line of the table."""
        whole = sum(map(sum, self.parts))
        waiting = sum(part[WAITING] for part in self.parts)
        return (
            str(self.rank),
            str(self.step),
            f"{self._loss.value:.3f}" if self.step else "–",
            f"{self.bytes_sent / 1e6:.1f}",
            f"{1e3 * self.seconds_a_step():.1f}" if whole else "–",
            f"{100 * waiting / whole:.0f}" if whole else "–",
        )


@feed.register
def _(thing: Ranks) -> RanksFeed:
    return RanksFeed(thing)
