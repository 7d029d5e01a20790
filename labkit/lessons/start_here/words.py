"""Notebook 00: what its results mean."""

from gettext import gettext as _

from labkit.compare import Race
from labkit.lessons.prose import Prose
from labkit.lessons.reading import FEW, Sentences
from labkit.lessons.start_here.measure import first_one_then_the_other
from labkit.measure import Standing

LAYOUT = Sentences(
    better=_("On this machine, take **{candidate}**: the whole interval lies above the margin."),
    worse=_("On this machine, stay with **{baseline}**: the whole interval lies below the margin."),
    same=_("On this machine, take either: the whole interval lies within the margin of {margin}."),
    unsure=_(
        "The interval reaches across the edge of the margin of {margin}. Measure longer, or decide "
        "on other grounds."
    ),
)

COPY = Sentences(
    better=_("A false alarm: nothing is faster than itself. Something else used the machine."),
    worse=_("A false alarm: nothing is slower than itself. Something else used the machine."),
    same=_(
        "As it should be: a thing is as fast as its copy, and the run was long enough to show it."
    ),
    unsure=_(
        "As it should be: no difference is claimed. Nor is it excluded that there is one of more "
        "than {margin}; a longer run would do that."
    ),
)

LIMITS = {
    "compute": _("There the roof is flat: arithmetic sets the limit"),
    "memory": _("There the roof slopes: memory sets the limit"),
}
STANDING = _(
    "- **{name}**: a step takes {milliseconds:.0f} ms and reaches {achieved:.0f} GFLOP/s, "
    "{fraction:.0%} of the {attainable:.0f} that the roof allows. {limit}, but it explains only "
    "that share of the time. The roof knows nothing of the rest."
)

ONE_THEN_THE_OTHER = _(
    "The two arms are the same code. A single pair of steps would have said anything from "
    "{lowest:.2f}x to {highest:.2f}x. Timing one arm first and the other one afterwards would have "
    "said {sequential:.2f}x. Taking turns says {measured}."
)


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
    return Prose("\n".join(lines))


def read_sequential(race: Race, first: str, second: str) -> Prose:
    """Return what timing one arm after the other would have said of two equal arms."""
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
