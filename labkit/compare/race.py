"""A race: trainings that differ in one named thing, run side by side.

Timing one arm after the other compares the machine of this minute with the machine of the next.
Here arms take turns, one step each, and their order changes every round, so that a busy
neighbour or a warm cache helps and hurts all alike. With each seed, all arms start from the same
weights and see the same batches in the same order; each has random generators of its own, so that
what one arm draws does not change the other. The clock stands still during evaluation.

    race = Race({"fp32": base, "bf16": base.but(precision="bf16")}, seeds=3)
    for round in race: ...      # stop when you like; iterating again goes on
    race.table()
    race.verdict("bf16", over="fp32", on="step time")
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from labkit.checks import check_positive_int
from labkit.compare import report
from labkit.compare.probe import Probe, probe
from labkit.compare.record import Record
from labkit.compare.verdict import Verdict
from labkit.facts import threads
from labkit.measure import order_of_round
from labkit.seeds import rng_state, set_rng_state
from labkit.table import Table
from labkit.training import Recipe, Step, Training
from labkit.training.checkpoint import read_state, write_state


@dataclass(frozen=True)
class Round:
    """What happened in one round: each arm's step, and accuracies where it was time to evaluate.

    An arm with fewer steps than the longest one rests in some rounds.
    """

    seed: int
    number: int
    steps: dict[str, Step]
    accuracies: dict[str, float]


class Race:
    """Trainings side by side; iterate to run, round by round.

    Args:
        arms: {name: recipe}, or pairs of both. The first arm is the baseline.
        seeds: trainings of each arm, with the seeds recipe.seed, recipe.seed + 1 …
        evaluations: how often in a training the accuracy is measured, evenly spread.
        target: accuracy (0 to 1) for "time to target", or None.
        thread_count: torch threads; see `labkit.facts` for why one is the default.

    Attributes:
        records: {arm: one Record a seed}.
        trainings: {arm: the Training of the current seed}; empty before the first round.

    Raises:
        ValueError: no arms, two arms of one name, or a number out of range.
        TypeError: an arm is not a Recipe.
        FloatingPointError: while iterating, when an arm's loss is not finite; it names the arm.
    """

    def __init__(
        self,
        arms: Mapping[str, Recipe] | Iterable[tuple[str, Recipe]],
        *,
        seeds: int = 3,
        evaluations: int = 4,
        target: float | None = None,
        thread_count: int = 1,
    ) -> None:
        pairs = list(arms.items() if isinstance(arms, Mapping) else arms)
        self.arms: dict[str, Recipe] = dict(pairs)
        if not pairs:
            raise ValueError("arms is empty: a race needs at least one arm")
        if len(self.arms) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"arms has the name {twice!r} more than once")
        for name, recipe in self.arms.items():
            if not isinstance(recipe, Recipe):
                raise TypeError(f"arm {name!r} must be a Recipe, got {type(recipe).__name__}")
        for label, number in (
            ("seeds", seeds),
            ("evaluations", evaluations),
            ("thread_count", thread_count),
        ):
            check_positive_int(label, number)
        if target is not None and not 0 < target < 1:
            raise ValueError(f"target must lie between 0 and 1, got {target!r}")
        self.seeds, self.evaluations = seeds, evaluations
        self.target, self.thread_count = target, thread_count
        self.baseline = pairs[0][0]
        self.records: dict[str, list[Record]] = {name: [] for name in self.arms}
        self.trainings: dict[str, Training] = {}
        self.number = 0  # rounds done with this seed
        self._steps: dict[str, Iterator[Step]] = {}
        self._rng: dict[str, dict[str, Any]] = {}
        self._wall = 0.0
        self._rounds_done = 0
        self._probes: dict[str, Probe] | None = None

    @property
    def rounds(self) -> int:
        """Rounds of one seed: the steps of the longest arm. 0 before the first round."""
        return max((len(training) for training in self.trainings.values()), default=0)

    @property
    def progress(self) -> float:
        """Share of the race that is done, 0 to 1."""
        seeds_done = max(0, len(self.records[self.baseline]) - 1)
        current = self.number / self.rounds if self.trainings else 0.0
        return (seeds_done + current) / self.seeds

    @property
    def finished(self) -> bool:
        """Whether every seed of every arm is done."""
        return bool(self.trainings) and self.progress >= 1

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end at the pace so far, or None before the first round."""
        if not self._rounds_done:
            return None
        left = self.rounds * self.seeds * (1 - self.progress)
        return self._wall / self._rounds_done * left

    def __iter__(self) -> Iterator[Round]:
        """Yield rounds until the race is finished; continue where an earlier iteration ended."""
        while not self.finished:
            yield self.advance()

    def advance(self) -> Round:
        """Do one round and return it.

        Raises:
            ValueError: the race is finished.
        """
        if self.finished:
            raise ValueError("the race is finished: there is no round left")
        outer, began = rng_state(), perf_counter()
        try:
            with threads(self.thread_count):
                if not self.trainings or self.number == self.rounds:
                    self._next_seed()
                return self._round()
        finally:
            set_rng_state(outer)
            self._wall += perf_counter() - began
            self._rounds_done += 1

    def _next_seed(self) -> None:
        number = len(self.records[self.baseline])
        self.trainings, self._steps, self._rng, self.number = {}, {}, {}, 0
        for name, recipe in self.arms.items():
            seeded = recipe.but(seed=recipe.seed + number)
            self.trainings[name] = seeded.training(timed=True)
            self._rng[name] = rng_state()
            self.records[name].append(Record(seeded.seed))

    def _round(self) -> Round:
        done, steps, accuracies = self.number + 1, {}, {}
        for name in order_of_round(list(self.arms), self.number):
            training, record = self.trainings[name], self.records[name][-1]
            set_rng_state(self._rng[name])
            if training.index / training.total < done / self.rounds:
                steps[name] = self._step(name)
                record.rounds.append(self.number)
                record.seconds.append(steps[name].seconds)
                record.losses.append(steps[name].loss)
            if self._evaluation_due(done, len(record.evaluations)):
                accuracies[name] = self.arms[name].evaluate(training.answering)
                so_far = record.elapsed[-1] if record.seconds else 0.0
                record.evaluations.append((training.index, so_far, accuracies[name]))
            self._rng[name] = rng_state()
        self.number = done
        return Round(self.records[self.baseline][-1].seed, done, steps, accuracies)

    def _step(self, name: str) -> Step:
        iterator = self._steps.setdefault(name, iter(self.trainings[name]))
        try:
            return next(iterator)
        except FloatingPointError as error:
            raise FloatingPointError(f"arm {name!r}: {error}") from error
        except BaseException:  # an interrupt ends the iterator: the next round needs a new one
            self._steps.pop(name)
            raise

    def _evaluation_due(self, done: int, evaluated: int) -> bool:
        return done * self.evaluations >= (evaluated + 1) * self.rounds

    def probes(self) -> dict[str, Probe]:
        """Return {arm: seconds and peak bytes of one step}, on throw-away models; measured once."""
        if self._probes is None:
            outer = rng_state()
            with threads(self.thread_count):
                self._probes = {name: probe(recipe) for name, recipe in self.arms.items()}
            set_rng_state(outer)
        return self._probes

    def estimate(self) -> float:
        """Return how many seconds the whole race will take on this machine, roughly."""
        a_seed = sum(p.total_seconds(self.evaluations) for p in self.probes().values())
        return self.seeds * a_seed

    def verdict(self, candidate: str, *, over: str | None = None, on: str = "step time") -> Verdict:
        """Return how `candidate` compares with `over` (the baseline when left out).

        Args:
            on: "step time", "time to target", "accuracy" or "peak memory".

        Raises:
            ValueError: no such arm or comparison, or nothing measured for it yet.
        """
        return report.verdict(self, candidate, over or self.baseline, on)

    def ratios(self, candidate: str, *, over: str | None = None) -> list[float]:
        """Return, round by round, the seconds of `over` (the baseline) / those of `candidate`.

        Raises:
            ValueError: no such arm.
        """
        report.check_arms(self, candidate, over or self.baseline)
        pairs = report.paired_steps(self.records[over or self.baseline], self.records[candidate])
        return [slow / fast for slow, fast in zip(*pairs, strict=True)]

    def table(self) -> Table:
        """Return one row an arm: time, speed against the baseline, accuracy, memory, n."""
        return report.table(self)

    def row(self, what: str, *, notebook: str = "", profile: str = "") -> dict[str, Any]:
        """Return the scoreboard row of this race; see `labkit.compare.scoreboard`."""
        return report.row(self, what, notebook=notebook, profile=profile)

    def save(self, path: str | Path) -> None:
        """Write the whole state of the race, so that `load` continues it to the bit."""
        state = {
            "arms": self._describe(),
            "seeds": self.seeds,
            "number": self.number,
            "rounds_done": self._rounds_done,
            "wall": self._wall,
            "records": {name: [r.as_dict() for r in rs] for name, rs in self.records.items()},
            "trainings": {name: training.state_dict() for name, training in self.trainings.items()},
            "rng": self._rng,
        }
        write_state(path, state)

    def load(self, path: str | Path) -> None:
        """Continue a saved race; this one must have been made with the same arms.

        Raises:
            ValueError: not a saved race, damaged, or of other arms; this race is unchanged.
        """
        state = read_state(path)
        if "arms" not in state:
            raise ValueError(f"{path} is a checkpoint, but not of a race")
        for what, mine in (("arms", self._describe()), ("seeds", self.seeds)):
            if state[what] != mine:
                raise ValueError(f"{path} is of another race: its {what} are {state[what]}")
        outer = rng_state()
        trainings = {}
        for name, saved in state["trainings"].items():
            seed = state["records"][name][-1]["seed"]
            trainings[name] = self.arms[name].but(seed=seed).training(timed=True)
            trainings[name].load_state_dict(saved)
        set_rng_state(outer)
        self.trainings, self._steps, self._rng = trainings, {}, state["rng"]
        self.number, self._wall = state["number"], state["wall"]
        self._rounds_done = state["rounds_done"]
        self.records = {
            name: [Record.from_dict(r) for r in records]
            for name, records in state["records"].items()
        }

    def _describe(self) -> dict[str, dict[str, str]]:
        return {name: recipe.fingerprints() for name, recipe in self.arms.items()}
