"""What does a training loop cost over bare PyTorch? labkit, accelerate, Lightning, fastai, skorch.

All arms do the same work: the same starting weights, the same ready batches, the same optimizer,
and in the end, which is checked after every turn, the same weights. Each library runs in the
leanest settings that its manual documents; see `benchmarks/arms`. The bare loop reads the loss
once a step, as everybody's does.

The arms run together and hand over to one another after a leg: one step of the conv net, ten of
the MLP, whose step is so short that the change itself would show. A leg's figure is the median of
its steps, and its cost is against the bare loop's leg of the same round, some milliseconds away.
Each turn of a few dozen steps starts with fresh models in a new order, so that luck in memory
placement does not stay with one arm. The legs of a turn share that luck, so a turn counts as one
observation: the median of its legs. A second bare loop shows how much "cost" is left when there
is none.
"""

import copy
import gc
import importlib
import io
import logging
import math
import random
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import nn

from benchmarks.arms.work import Batch, Clocked
from benchmarks.relay import relay
from benchmarks.rows import Row, not_installed
from labkit import data, models
from labkit.facts import threads
from labkit.measure.statistics import Estimate, median_interval

Fit = Callable[[nn.Module, Clocked, Path], None]

BARE = "bare loop"
ARMS = {  # name: (module in benchmarks.arms, the library it needs)
    BARE: ("bare", "torch"),
    "bare loop again": ("bare", "torch"),
    "labkit": ("with_labkit", "labkit"),
    "accelerate": ("with_accelerate", "accelerate"),
    "accelerate, data prepared": ("with_accelerate_data", "accelerate"),
    "Lightning, barebones": ("with_lightning", "lightning"),
    "fastai": ("with_fastai", "fastai"),
    "skorch": ("with_skorch", "skorch"),
}
NOTES = {"bare loop again": "a control: the truth is 0"}


@dataclass(frozen=True)
class Workload:
    """One training that every arm repeats.

    Attributes:
        model: the starting weights.
        batches: one for each step.
        leg: steps before the next arm takes over.
        warmup: legs at the start that do not count: first allocations, the optimizer's buffers.
    """

    name: str
    model: nn.Module
    batches: list[Batch]
    leg: int
    warmup: int


def mlp(steps: int = 60) -> Workload:
    """Return a step so small that a loop's own cost shows: MLP 64-64-10, batch 64."""
    generator = torch.Generator().manual_seed(0)
    batches = [
        (
            torch.randn(64, 64, generator=generator),
            torch.randint(10, (64,), generator=generator),
        )
        for _ in range(steps)
    ]
    torch.manual_seed(0)
    return Workload("MLP", models.mlp(), batches, leg=10, warmup=1)


def convnet(steps: int = 25, batch_size: int = 128, width: int = 16) -> Workload:
    """Return the lab's conv net on Fashion-MNIST."""
    enough = math.ceil(steps * batch_size / 10) * 10  # as many of each of the ten classes
    images = data.fashion(train=enough, test=10)
    batches = list(images.batches(batch_size, memory_format=torch.channels_last))[:steps]
    torch.manual_seed(0)
    model = models.convnet(width=width).to(memory_format=torch.channels_last)
    return Workload("conv net", model, batches, leg=1, warmup=5)


def run(quick: bool = False) -> list[Row]:
    """Return the cost of each loop on both workloads, in per cent of the bare loop."""
    if quick:
        plan = [(mlp(40), 6), (convnet(10, batch_size=32), 6)]
    else:
        plan = [(mlp(), 100), (convnet(), 50)]
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, quiet(), threads(1):
        arms, missing = load_arms(ARMS)
        for workload, turns in plan:
            found += rows(workload, measure(workload, arms, turns, Path(folder)))
            found += [not_installed(f"{workload.name}: {arm}", lib) for arm, lib in missing.items()]
    return found


def load_arms(wanted: Mapping[str, tuple[str, str]]) -> tuple[dict[str, Fit], dict[str, str]]:
    """Import the arms; return {name: fit} and {name: library} of those that are not installed."""
    arms, missing = {}, {}
    for name, (module, library) in wanted.items():
        try:
            arms[name] = importlib.import_module(f"benchmarks.arms.{module}").fit
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != library:
                raise
            missing[name] = library
    return arms, missing


def measure(
    workload: Workload, arms: Mapping[str, Fit], turns: int, folder: Path
) -> dict[str, list[list[float]]]:
    """Return {arm: turns of legs, in seconds of a step}; a turn of warm-up comes first.

    Raises:
        AssertionError: an arm did not end with the bare loop's weights; it is named.
    """
    names = list(arms)
    seconds: dict[str, list[list[float]]] = {name: [] for name in names}
    gc.collect()
    gc.freeze()  # what the libraries made on import is not looked through before every turn
    try:
        for turn in range(-1, turns):
            random.Random(turn).shuffle(names)
            legs = take_turn(workload, {name: arms[name] for name in names}, folder)
            if turn >= 0:
                for name in names:
                    seconds[name].append(legs[name])
    finally:
        gc.unfreeze()
    return seconds


def take_turn(workload: Workload, arms: Mapping[str, Fit], folder: Path) -> dict[str, list[float]]:
    """Train a fresh copy of the model with each arm, side by side; return the legs of each."""
    weights: dict[str, dict[str, torch.Tensor]] = {}
    legs: dict[str, list[float]] = {}

    def runner(name: str, hand_over: Callable[[], None]) -> None:
        model = copy.deepcopy(workload.model)
        batches = Clocked(workload.batches, workload.leg, hand_over)
        arms[name](model, batches, folder)
        weights[name], legs[name] = model.state_dict(), batches.legs(workload.warmup)

    gc.collect()  # so that no step pays for what the turn before left behind
    relay({name: partial(runner, name) for name in arms})
    for name in arms:
        check_same_work(name, weights[name], weights[BARE])
    return legs


def check_same_work(
    name: str, state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> None:
    """Raise an AssertionError that names the arm unless it ended with the expected weights."""
    torch.testing.assert_close(
        dict(state),
        dict(expected),
        rtol=1e-4,
        atol=1e-6,
        msg=lambda text: f"{name!r} did other work than the bare loop: {text}",
    )


def rows(workload: Workload, turns: Mapping[str, list[list[float]]]) -> list[Row]:
    """Return the bare loop's milliseconds, and what each other arm costs over it."""
    bare = median_interval([1e3 * median(legs) for legs in turns[BARE]])
    return [
        Row(f"{workload.name}: {BARE}", bare, "ms", "a step"),
        *(
            Row(f"{workload.name}: {name}", cost(turns[BARE], mine), "%", NOTES.get(name, ""))
            for name, mine in turns.items()
            if name != BARE
        ),
    ]


def cost(bare: list[list[float]], other: list[list[float]]) -> Estimate:
    """Return by how many per cent `other` is slower than `bare`, paired leg by leg; n is turns."""
    ratios = [
        [mine / theirs for theirs, mine in zip(*turn, strict=True)]
        for turn in zip(bare, other, strict=True)
    ]
    log = median_interval([math.log(median(legs)) for legs in ratios])
    value, low, high = (100 * math.expm1(x) for x in (log.value, log.low, log.high))
    return Estimate(value, low, high, log.n)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the libraries inside the block.

    They warn of what is done here on purpose (few workers, no validation, barebones mode) and
    print hints on every `fit`: thousands of lines, and time that is not training. Errors still
    arrive as exceptions.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
