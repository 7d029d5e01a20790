"""Notebook 00: what its results mean."""

from gettext import gettext as _

from labkit.compare import Race
from labkit.lessons.lesson import Prediction
from labkit.lessons.prose import Prose
from labkit.lessons.reading import FEW, Sentences, read
from labkit.lessons.start_here.measure import first_one_then_the_other
from labkit.measure import Standing

LAYOUT = Sentences(
    better=_("By its step time, take **{candidate}**: the whole interval lies above the margin."),
    worse=_(
        "By its step time, stay with **{baseline}**: the whole interval lies below the margin."
    ),
    same=_("By step time, take either: the whole interval lies within the margin of {margin}."),
    unsure=_(
        "The interval reaches across the edge of the margin of {margin}. Measure longer, or decide "
        "on other grounds."
    ),
)

ACCURACY = Sentences(
    better=_("**{candidate}** learned more in as many steps. Weigh it with the time of a step."),
    worse=_("**{candidate}** learned less in as many steps. Weigh it with the time of a step."),
    same=_("By accuracy, take either: they learned as much, to within {margin}."),
    unsure=_("By accuracy, these seeds show neither a difference nor its absence."),
    few=_("By accuracy, so few seeds show nothing."),
)

COPY = Sentences(
    better=_(
        "A false alarm: nothing is faster than itself. It may be chance, or something that "
        "favoured one arm, such as its place in memory."
    ),
    worse=_(
        "A false alarm: nothing is slower than itself. It may be chance, or something that "
        "favoured one arm, such as its place in memory."
    ),
    same=_(
        "As it should be: a thing is as fast as its copy, and the run was long enough to show it."
    ),
    unsure=_(
        "As it should be: no difference is claimed. Nor is it excluded that there is one of more "
        "than {margin}; a longer run may do that."
    ),
)

LIMITS = {
    "compute": _("There the roof is flat: arithmetic sets the limit"),
    "memory": _("There the roof slopes: memory sets the limit"),
}
STANDING = _(
    "- **{name}**: a step takes {milliseconds:.0f} ms and reaches {achieved:.0f} GFLOP/s, "
    "{fraction:.0%} of the {attainable:.0f} under the roof. {limit}."
)
STANDINGS = _(
    "{standings}\n\nThe roof counts multiplying and moving only. What else a step does puts it "
    "below; data that stay in a cache, or a peak that was measured too low, put it above. These "
    "times are medians of a few steps, without an interval: which layout is faster, the race "
    "decides."
)

ONE_THEN_THE_OTHER = _(
    "The two arms are the same code. The ratios of single rounds reach from {lowest:.2f}x to "
    "{highest:.2f}x. The first half of one arm's steps against the second half of the other's, "
    "median against median, gives {sequential:.2f}x. The median ratio of all rounds is {measured}."
)


def read_layout(race: Race, guess: Prediction) -> Prose:
    """Return what the race says of channels_last: its step time, then its accuracy.

    Args:
        race: contiguous against channels_last.
        guess: of how many times faster channels_last is.
    """
    time = read(race.verdict("channels_last"), LAYOUT, guess)
    return Prose(f"{time}\n\n{read(race.verdict('channels_last', on='accuracy'), ACCURACY)}")


def read_standings(standings: dict[str, Standing]) -> Prose:
    """Return what the points under the roof say."""
    lines = [
        STANDING.format(
            name=name,
            milliseconds=1e3 * standing.seconds,
            achieved=standing.achieved,
            fraction=standing.fraction,
            attainable=standing.attainable,
            limit=LIMITS[standing.bound],
        )
        for name, standing in standings.items()
    ]
    return Prose(STANDINGS.format(standings="\n".join(lines)))


def read_sequential(race: Race, first: str, second: str) -> Prose:
    """Return how far single rounds, and arms timed one after the other, differ if equal."""
    ratios = race.ratios(second, over=first)
    if not ratios:
        return Prose(FEW)
    said = ONE_THEN_THE_OTHER.format(
        lowest=min(ratios),
        highest=max(ratios),
        sequential=first_one_then_the_other(race, first, second),
        measured=race.verdict(second, over=first).figures,
    )
    return Prose(said)
