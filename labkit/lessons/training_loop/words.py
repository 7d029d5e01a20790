"""Notebook 01: what its results mean."""

import math
from collections.abc import Mapping, Sequence
from gettext import gettext as _
from statistics import median

from labkit import units
from labkit.compare import FORWARD_TIME, Quantity, Race, Samples
from labkit.lessons.lesson import Prediction
from labkit.lessons.prose import Prose
from labkit.lessons.reading import Sentences, read, read_all, sentence
from labkit.lessons.training_loop.measure import FORWARD_MEMORY, shares
from labkit.measure import Timing, median_interval
from labkit.training import Phases

# -- where a step's time goes ----------------------------------------------------------------

TIME_PER_OPERATION = Quantity.time("time for as many operations", margin=0.1)
SHARES = _("**Of the time of a step: {listed}.** The largest part is {largest}: look there first.")
COUNT = Sentences(
    better=_(
        "The backward pass takes {times:.2f}x the time of the forward pass, and {counted:.2f}x the "
        "operations. So for each operation that is counted it takes less time, and the count does "
        "not say why."
    ),
    worse=_(
        "The backward pass takes {times:.2f}x the time of the forward pass, and only "
        "{counted:.2f}x the operations. So for each operation that is counted it takes longer, "
        "and the count does not say why."
    ),
    same=_(
        "The backward pass takes {times:.2f}x the time of the forward pass, and {counted:.2f}x the "
        "operations: to within {margin}, time and count agree."
    ),
    unsure=_(
        "The backward pass takes about {times:.2f}x the time of the forward pass, and "
        "{counted:.2f}x the operations. These steps can't tell whether time and count agree."
    ),
)


def read_phases(phases: Sequence[Phases], counted: float, guess: Prediction) -> Prose:
    """Return where the time went, against the count of operations and against a prediction.

    Args:
        phases: of each step.
        counted: operations of the backward pass / those of the forward pass.
        guess: the backward pass's share in percent.
    """
    part = shares(phases)
    listed = ", ".join(f"{name} {share:.0%}" for name, share in part.items())
    seconds = {
        "forward pass": [step.forward for step in phases],
        "backward pass": [step.backward / counted for step in phases],
    }
    verdict = Samples.of_timings(seconds, TIME_PER_OPERATION).verdict("backward pass")
    percent = median_interval([100 * step.backward / sum(step) for step in phases])
    first = SHARES.format(listed=listed, largest=max(part, key=lambda name: part[name]))
    times = counted / verdict.estimate.value
    said = sentence(verdict, COUNT, times=times, counted=counted)
    return Prose(f"{first}\n\n{said}\n\n{guess.against(percent)}")


# -- the race of two optimizers --------------------------------------------------------------

WORK = _(
    "The optimizer took {share:.1%} of the SGD step. If nothing else differs, twice that work "
    "would give about {twice:.3f}x, and the ratio above means about {factor:.1f} ({low:.1f} to "
    "{high:.1f}) times that work."
)
OPTIMIZER_TIME = Sentences(
    better=_("{work} The whole step is shorter; then AdamW's part is the shorter one."),
    worse=_("{work} The whole step is longer, by a smaller factor than that part."),
    same=_("{work} To within {margin} the whole step takes as long, whatever that part does."),
    unsure=_("{work} That is too wide to say whether the whole step got longer."),
)
OPTIMIZER_RESULT = Sentences(
    better=_(
        "With these settings AdamW learned more in as many steps. Weigh it with the time of a step."
    ),
    worse=_("With these settings AdamW learned less in as many steps. Judge it by that first."),
    same=_(
        "With these settings both learned as much in as many steps, to within {margin}: compare "
        "the time of a step."
    ),
    unsure=_(
        "With these settings, these few steps and seeds show neither a difference nor its absence."
    ),
)


def read_race(race: Race, optimizer_share: float, guess: Prediction) -> Prose:
    """Return what the optimizers' race says of Amdahl's law, time and accuracy.

    Args:
        race: the baseline is SGD, the other arm AdamW.
        optimizer_share: SGD's share of a step's time, 0 to 1.
        guess: how many times faster the step is with AdamW.
    """
    verdict = race.verdict("AdamW")
    ratio = verdict.estimate
    factor, low, high = (
        times_the_work(r, optimizer_share) for r in (ratio.value, ratio.high, ratio.low)
    )
    twice = 1 / (1 + optimizer_share)
    work = WORK.format(share=optimizer_share, twice=twice, factor=factor, low=low, high=high)
    result = race.verdict("AdamW", on="accuracy")
    time = read(verdict, OPTIMIZER_TIME, guess, work=work)
    return Prose(f"{time}\n\n{read(result, OPTIMIZER_RESULT)}")


def times_the_work(ratio: float, share: float) -> float:
    """Return how many times longer a part takes if the whole is `ratio` times as fast for it.

    Amdahl's law, 1 / ratio = (1 - share) + factor * share, solved for the factor.
    """
    return max(0.0, 1 + (1 / ratio - 1) / share) if ratio else math.inf


# -- batch size ------------------------------------------------------------------------------

IMAGE_TIME = Quantity.time("time of an image")
BATCHES = Sentences(
    better=_(
        "Images a second: {rates}. If a step were a fixed cost and a time for each image, that "
        "would mean a fixed cost of {fixed}: {of_small:.0%} of a step of {small} images, "
        "{of_large:.0%} of one of {large}. Two sizes can't test whether it is."
    ),
    worse=_(
        "Images a second: {rates}. An image takes longer in the larger batch, so no fixed cost "
        "shows; something else grows."
    ),
    same=_(
        "Images a second: {rates}. To within {margin} an image takes as long in both, so no fixed "
        "cost shows between these two sizes."
    ),
    unsure=_("Images a second: {rates}. These few steps can't tell the two sizes apart."),
    few=_("Images a second: {rates}. Those are too few steps to compare the two sizes."),
)


def read_batches(taken: Mapping[int, Sequence[Phases]]) -> str:
    """Return the sentence under the knob: images a second, and the fixed cost of a step.

    Args:
        taken: {images a step: parts of each step}, of two sizes.
    """
    seconds = {size: [sum(step) for step in phases] for size, phases in sorted(taken.items())}
    small, large = seconds
    an_image = {f"{size} a step": [s / size for s in each] for size, each in seconds.items()}
    verdict = Samples.of_timings(an_image, IMAGE_TIME).verdict(f"{large} a step")
    step = {size: median(each) for size, each in seconds.items()}
    # Two points make a line: seconds = fixed + size * each.
    each = (step[large] - step[small]) / (large - small)
    fixed = step[small] - small * each
    return sentence(
        verdict,
        BATCHES,
        rates=" and ".join(f"{size / s:,.0f} with {size}" for size, s in step.items()),
        fixed=units.duration(fixed),
        of_small=fixed / step[small],
        of_large=fixed / step[large],
        small=small,
        large=large,
    )


# -- what recording and reading cost ---------------------------------------------------------

MODES_TIME = Sentences(
    better=_("faster here than recording."),
    worse=_("slower here than recording, which nobody would expect: run the cell again."),
    same=_("as fast here as recording."),
    unsure=_("can't be told from recording by its time."),
)
MODES_MEMORY = Sentences(
    better=_(
        "Recording needs {value:.1f} times the memory: it keeps the input of every layer until the "
        "backward pass. Without it each is freed at once."
    ),
    worse=_("Recording keeps no memory that shows here."),
    same=_("Recording keeps no memory that shows here."),
)
READ_SHORTER = _("Reading can't make a step shorter. Chance may be at work: run the cell again.")
ON_A_CPU = Sentences(
    better=READ_SHORTER,
    worse=_("Here reading has its price. This run does not say why."),
    same=_(
        "Reading the loss costs nothing that matters here. A CPU has computed the number before "
        "the next line runs: reading it is a look into memory."
    ),
)
ON_AN_ACCELERATOR = Sentences(
    better=READ_SHORTER,
    worse=_(
        "Here reading has its price. An accelerator works behind Python's back: each read waits "
        "until it has caught up, and then it idles until the next orders come."
    ),
    same=_("Reading the loss costs nothing that matters here. This run does not say why."),
)


def read_modes(samples: Samples) -> Prose:
    """Return what the gradient modes save against the first one, which records gradients.

    Args:
        samples: forward times and peak memory of three modes; the last two record nothing.
    """
    others = [arm for arm in samples.arms if arm != samples.baseline]
    times = {name: samples.verdict(name, on=FORWARD_TIME) for name in others}
    apart = samples.verdict(others[1], others[0], FORWARD_TIME)
    memory = read(samples.verdict(others[0], on=FORWARD_MEMORY), MODES_MEMORY)
    return Prose(f"{read_all(times, MODES_TIME)}\n\n**{apart}**\n\n{memory}")


def read_item(samples: Samples, device: str) -> Prose:
    """Return what reading the loss in every step costs on `device` ("cpu", "cuda")."""
    return read(samples.verdict("read"), ON_A_CPU if device == "cpu" else ON_AN_ACCELERATOR)


# -- checkpoints -----------------------------------------------------------------------------

FORGETFUL = _(
    "**With the weights alone, {count} of {all} losses differ**, by {mean:.2f} on average and "
    "{most:.2f} at most. It trains, and nothing warns you. Three things differ at once: momentum "
    "starts at zero, the schedule at its beginning, and the batches come in another order. The "
    "figure does not say how much each of them costs."
)
NOTHING_LOST = _("The losses are the same: nothing but the weights mattered here.")
SAVE = _(
    "A save takes {save}, a step {step}: **one save in {every} steps costs at most 1 % of the "
    "time.** Young's rule balances that cost against the work that a failure destroys. The best "
    "pause between two saves is √(2 · save · time between failures): with one failure a day, "
    "{young}."
)


def read_weights_only(whole: Sequence[float], forgetful: Sequence[float]) -> Prose:
    """Return how far the losses of a resume from the weights alone are off.

    Args:
        whole: losses of the uninterrupted run.
        forgetful: losses after the resume, as many as are left.
    """
    gaps = [abs(a - b) for a, b in zip(forgetful, whole[-len(forgetful) :], strict=True)]
    if not any(gaps):
        return Prose(NOTHING_LOST)
    count, mean = sum(gap > 0 for gap in gaps), sum(gaps) / len(gaps)
    return Prose(FORGETFUL.format(count=count, all=len(gaps), mean=mean, most=max(gaps)))


def read_save(times: Mapping[str, Timing]) -> Prose:
    """Return how often to save, from the times of "save" and "step"."""
    save, step = times["save"].median, times["step"].median
    return Prose(
        SAVE.format(
            save=units.duration(save),
            step=units.duration(step),
            every=max(1, math.ceil(100 * save / step)),
            young=units.duration(math.sqrt(2 * save * 24 * 3600)),
        )
    )
