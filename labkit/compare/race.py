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

A race only measures. What may be said of it is said by its `samples`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

from labkit.checks import check_positive_int, explaining
from labkit.compare.quantity import STEP_TIME, TIME_TO_TARGET, Quantity
from labkit.compare.race_duration import seconds_of_a_training
from labkit.compare.record import WARMUP_ROUNDS, Record, Round, samples_of
from labkit.compare.refused import check_arms, check_examples, other_race
from labkit.compare.samples import Samples
from labkit.compare.turns import Turns
from labkit.compare.verdict import Verdict
from labkit.facts import threads
from labkit.measure import order_of_round, peak_memory
from labkit.seeds import kept_rng, rng_state, set_rng_state
from labkit.table import Table
from labkit.training import Recipe, Step, Training
from labkit.training.checkpoint import read_state, write_state


class Race:
    """Trainings side by side; iterate to run, round by round.

    Args:
        arms: {name: recipe}. The first arm is the baseline.
        seeds: trainings of each arm, with the seeds recipe.seed, recipe.seed + 1 …
        evaluations: how often in a training the model is scored, evenly spread.
        target: mean score for "time to target", such as 0.9 right, or 1.5 nats of loss, or None.
        thread_count: torch threads; see `labkit.facts` for why one is the default.

    Attributes:
        records: {arm: one Record a seed}.
        trainings: {arm: the Training of the current seed}; empty before the first round.
        metric: the quantity of the arms' metric.

    Raises:
        ValueError: no arms, arms of different metrics, or a number out of range; while iterating,
            arms that are tested on other numbers of examples.
        TypeError: an arm is not a Recipe.
        FloatingPointError: while iterating, when an arm's loss is not finite; it names the arm.
    """

    def __init__(
        self,
        arms: Mapping[str, Recipe],
        *,
        seeds: int = 3,
        evaluations: int = 4,
        target: float | None = None,
        thread_count: int = 1,
    ) -> None:
        self.arms = check_arms(arms, seeds)
        self.baseline = next(iter(self.arms))
        self.metric = Quantity.of(self.arms[self.baseline].task.metric)
        check_positive_int("evaluations", evaluations)
        check_positive_int("thread_count", thread_count)
        low, high = self.metric.low / self.metric.scale, self.metric.high / self.metric.scale
        if target is not None and not low < target < high:
            raise ValueError(f"target must lie between {low:g} and {high:g}, got {target!r}")
        self.seeds, self.evaluations = seeds, evaluations
        self.target, self.thread_count = target, thread_count
        self.records: dict[str, list[Record]] = {name: [] for name in self.arms}
        self.trainings: dict[str, Training] = {}
        self.number = 0  # rounds done with this seed
        self._steps: dict[str, Iterator[Step]] = {}
        self._rng: dict[str, dict[str, Any]] = {}
        self._wall = 0.0
        self._rounds_done = 0
        self._whole_rounds = Turns()

    # -- how far it is -----------------------------------------------------------------------

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

    # -- the work ----------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Round]:
        """Yield rounds until the race is finished; continue where an earlier iteration ended."""
        # Held over all rounds: a change of the number of threads makes oneDNN forget its kernels,
        # and in each round the first arm would pay for building them again.
        with threads(self.thread_count):
            while not self.finished:
                yield self.advance()

    def advance(self) -> Round:
        """Do one round and return it.

        Who calls this in a loop of their own holds `threads(race.thread_count)` around the loop.

        Raises:
            ValueError: the race is finished.
        """
        if self.finished:
            raise ValueError("the race is finished: there is no round left")
        with self._whole_rounds:
            began = perf_counter()
            try:
                with kept_rng(), threads(self.thread_count):
                    if not self.trainings or self.number == self.rounds:
                        self._next_seed()
                    return self._round()
            finally:
                self._wall += perf_counter() - began
                self._rounds_done += 1

    def _next_seed(self) -> None:
        number, names = len(self.records[self.baseline]), list(self.arms)
        self.trainings, self._steps = {}, {}  # they make room before the next are built
        trainings, rng = {}, {}
        # Who is built first may lie better in memory for as long as the seed lasts: so it is
        # another arm with every seed.
        first = number % len(names)
        for name in names[first:] + names[:first]:
            recipe = self.arms[name]
            trainings[name] = recipe.but(seed=recipe.seed + number).training(timed=True)
            rng[name] = rng_state()
        for name in names:
            self.records[name].append(Record(self.arms[name].seed + number))
        self.trainings, self._rng = {name: trainings[name] for name in names}, rng
        self.number = 0

    def _round(self) -> Round:
        done, steps, means = self.number + 1, {}, {}
        for name in order_of_round(list(self.arms), self.number):
            training, record = self.trainings[name], self.records[name][-1]
            set_rng_state(self._rng[name])
            if training.index / training.total < done / self.rounds:
                steps[name] = self._step(name)
                record.rounds.append(self.number)
                record.seconds.append(steps[name].seconds)
                record.losses.append(steps[name].loss)
            if done * self.evaluations >= (len(record.evaluations) + 1) * self.rounds:
                means[name] = record.evaluate(self.arms[name].scores(training.answering))
            self._rng[name] = rng_state()
        check_examples(self.records)
        self.number = done
        return Round(self.records[self.baseline][-1].seed, done, steps, means)

    def _step(self, name: str) -> Step:
        iterator = self._steps.setdefault(name, iter(self.trainings[name]))
        try:
            return self._measured(name, iterator) if self._peak_is_due(name) else next(iterator)
        except FloatingPointError as error:
            raise FloatingPointError(f"arm {name!r}: {error}") from error
        except BaseException:  # an interrupt ends the iterator: the next round needs a new one
            self._steps.pop(name)
            raise

    def _peak_is_due(self, name: str) -> bool:
        """Whether an arm's memory is measured in this step: once, in a round that is not timed.

        In the second step, because the first one creates what the optimizer keeps; but in the
        first one of an arm whose second step comes after the warm-up.
        """
        first, training = self.records[name][0], self.trainings[name]
        if first.peak_bytes is not None or len(self.records[name]) > 1:
            return False
        second = self.rounds // training.total  # the round of its second step
        early = training.total > 1 and second < WARMUP_ROUNDS
        return len(first.seconds) == (1 if early else 0)

    def _measured(self, name: str, iterator: Iterator[Step]) -> Step:
        training, record, done = self.trainings[name], self.records[name][0], list[Step]()
        training.optimizer.zero_grad()  # so that the old gradients do not make room for the new
        peak = peak_memory(lambda: done.append(next(iterator)), device=training.device)
        record.peak_bytes, record.profiled = peak, len(record.seconds)
        return done[0]

    def estimate(self) -> float:
        """Return how many seconds the whole race will take here, roughly.

        It runs a few steps of throw-away models.
        """
        with kept_rng(), threads(self.thread_count):
            each = [seconds_of_a_training(r, self.evaluations) for r in self.arms.values()]
        return self.seeds * sum(each)

    # -- what came out -----------------------------------------------------------------------

    @property
    def samples(self) -> Samples:
        """All that was measured so far."""
        with self._whole_rounds:
            return samples_of(self.records, self.metric, self.target)

    def verdict(self, candidate: str, *, over: str | None = None, on: str = "step time") -> Verdict:
        """Return how `candidate` compares with `over` (the baseline when left out).

        Args:
            candidate: name of an arm.
            over: the arm that it is compared with.
            on: "step time", "time to target", "peak memory" or the metric's name.

        Raises:
            ValueError: no such arm or comparison.
        """
        if on == TIME_TO_TARGET.name and self.target is None:
            raise ValueError("this race has no target: give Race(..., target=0.9)")
        return self.samples.verdict(candidate, over, on)

    def ratios(self, candidate: str, *, over: str | None = None) -> list[float]:
        """Return, round by round, the seconds of `over` (the baseline) / those of `candidate`."""
        return self.samples.ratios(candidate, over, STEP_TIME)

    def table(self, *, brief: bool = False) -> Table:
        """Return one row an arm: time, speed, the metric and its difference, memory."""
        base, *others = self.arms.values()
        differing = sorted({field for recipe in others for field in base.differences(recipe)})
        what = f"Arms differ in: {', '.join(differing)}." if differing else "The arms are the same."
        return self.samples.table(what, brief=brief)

    # -- on disk -----------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the whole state of the race, so that `load` continues it to the bit.

        While it runs in another thread, as `live` lets it, the end of the round is waited for.
        """
        with self._whole_rounds:
            state = {
                "arms": self._fingerprints(),
                **self._counts(),
                "number": self.number,
                "rounds_done": self._rounds_done,
                "wall": self._wall,
                "records": {name: [r.as_dict() for r in rs] for name, rs in self.records.items()},
                "trainings": {name: each.state_dict() for name, each in self.trainings.items()},
                "rng": self._rng,
            }
            write_state(path, state)

    def load(self, path: str | Path) -> None:
        """Continue a saved race; this one must be made with the same arms and numbers.

        Raises:
            ValueError: not a saved race, damaged, or of other arms; this race is unchanged.
        """
        state = read_state(path)
        if "arms" not in state:
            raise ValueError(f"{path} is a checkpoint, but not of a race")
        if what := other_race(state, self._fingerprints(), self._counts()):
            raise ValueError(f"{path} is of another race: {what}")
        with explaining(f"continuing the race of {path}"), kept_rng():
            trainings, records = {}, {}
            for name, saved in state["trainings"].items():
                seed = state["records"][name][-1]["seed"]
                trainings[name] = self.arms[name].but(seed=seed).training(timed=True)
                trainings[name].load_state_dict(saved)
            for name, of_arm in state["records"].items():
                records[name] = [Record.from_dict(record) for record in of_arm]
            rng, number, wall, done = (state[k] for k in ("rng", "number", "wall", "rounds_done"))
        with self._whole_rounds:
            self.trainings, self.records, self._steps, self._rng = trainings, records, {}, rng
            self.number, self._wall, self._rounds_done = number, wall, done

    def _fingerprints(self) -> dict[str, dict[str, str]]:
        return {name: recipe.fingerprints() for name, recipe in self.arms.items()}

    def _counts(self) -> dict[str, int]:
        return {"seeds": self.seeds, "evaluations": self.evaluations}
