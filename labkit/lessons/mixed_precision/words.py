"""Notebook 03: what its results mean."""

from collections.abc import Sequence
from gettext import gettext as _

from labkit.compare import Race
from labkit.lessons.lesson import Prediction
from labkit.lessons.mixed_precision.measure import scale_figures
from labkit.lessons.prose import Prose
from labkit.lessons.reading import Sentences, read

SCALES = _(
    "Loss scales from `2**{low}` to `2**{high}` keep 99.9 % of both kinds of gradients from "
    "becoming 0, and overflow nowhere."
)
NO_SCALE = _("No loss scale keeps 99.9 % of both kinds of gradients without an overflow.")

SMALL_LOSS = Sentences(
    better=_("lower than fp32's. Rounding can do that by luck; one training shows no more."),
    worse=_(
        "higher than fp32's. Mathematically it is the same training, so rounding makes the "
        "difference: what the format loses, or the luck of one training."
    ),
    same=_("as good as fp32's: whatever the format loses does not show in this one training."),
    unsure=_(
        "no difference can be claimed, and none be excluded. More images would narrow the "
        "interval; the luck of rounding in one training would stay."
    ),
)

SCALE = _(
    "**{skipped} of {steps} steps were left out**: they changed no weight. {first} of them came at "
    "the start. At its lowest the scale was {lowest:,.0f}. It doubled {doubled} times."
)

TIME = Sentences(
    better=_(
        "**{candidate} is faster here.** If both steps reached the roof, it would be {bound:.2f}x. "
        "The roof counts multiplying and moving only; whatever else a step does is not in it."
    ),
    worse=_(
        "**{candidate} is slower here.** In the roof, this machine multiplies it at {peak:.2f} "
        "times the speed of fp32; if both steps reached the roof, it would be {bound:.2f}x. But "
        "the roof was measured with forward passes only, and holds no converting to and fro."
    ),
    same=_("By time, take either: they differ by less than {margin}. Look at memory and accuracy."),
)
ACCURACY = Sentences(
    better=_("It learned more in as many steps."),
    worse=_("It learned less in as many steps: judge it by that first."),
    same=_("It learned as much in as many steps."),
    unsure=_("Whether it learned as much, these seeds can't tell."),
    few=_("Whether it learned as much, a single seed can't tell."),
)


def read_scales(powers: Sequence[int]) -> Prose:
    """Return which loss scales suit; `powers` is empty if none does."""
    if not powers:
        return Prose(NO_SCALE)
    return Prose(SCALES.format(low=powers[0], high=powers[-1]))


def read_scale(scales: Sequence[float], skipped: Sequence[bool]) -> Prose:
    """Return how the loss scale moved; see `measure.scale_figures`."""
    return Prose(SCALE.format(**scale_figures(scales, skipped)))


def read_race(race: Race, guess: Prediction, **figures: float) -> Prose:
    """Return how the first 16-bit format compares with fp32 in time and accuracy.

    Args:
        race: the first arm is fp32, the second the one that is read.
        guess: of how many times faster it is.
        figures: what the roof says, see `measure.roof_figures`.
    """
    name = list(race.arms)[1]
    time = read(race.verdict(name), TIME, guess, **figures)
    return Prose(f"{time}\n\n{read(race.verdict(name, on='accuracy'), ACCURACY)}")
