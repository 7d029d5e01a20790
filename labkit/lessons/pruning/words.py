"""Pruning: what each outcome of its measurements means."""

from gettext import gettext as _

from labkit.lessons.reading import Sentences

UNSURE = _("This many test images can't tell.")

MASKS = Sentences(
    better=_("Zeros do save time here: some kernel of this machine skips them."),
    worse=_("The zeros made it slower here, which nobody expects of a dense kernel."),
    same=_("**No faster.** A dense kernel multiplies by zero as fast as by anything else."),
)
SPARSE = Sentences(
    better=_("better than all weights, by more than the margin."),
    worse=_("more than the margin is lost, with the training it had."),
    same=_("loses less than the margin, if anything."),
    unsure=_("this many test images can't tell whether the margin is kept."),
)
TWO_OF_FOUR = Sentences(
    better=_("Half of the weights gone in this pattern, and more accurate than before."),
    worse=_("Half of the weights gone in this pattern costs accuracy, also after fine-tuning."),
    same=_("Half of the weights gone in this pattern, and after fine-tuning nothing is lost."),
    unsure=_("Whether fine-tuning has mended all of it, this many test images can't tell."),
)
HALF = Sentences(
    better=_(
        "{fewer:.2f} times fewer operations: the time gives {share:.0%} of what their count "
        "promises. Measured again, with other copies of the models, the share can differ by more "
        "than the interval."
    ),
    worse=_("{fewer:.2f} times fewer operations, and slower here."),
    same=_("{fewer:.2f} times fewer operations, and no time saved."),
)
WIDTHS = Sentences(
    better=_("no step here: the channel more costs less than the average one."),
    worse=_(
        "one channel above makes every channel dearer: the time jumps there. Look in the figure "
        "how far apart the jumps are, and prune to those widths."
    ),
    same=_("no step here."),
    unsure=_("whether there is a step, this noise does not show."),
)
PENALTY = Sentences(
    better=_("Channels that go without any loss: {removed}. The penalty even helped the training."),
    worse=_(
        "Channels that go without any loss: {removed}. The training before, with the penalty, "
        "cost accuracy."
    ),
    same=_("Channels that go without any loss: {removed}. The penalty cost nothing that matters."),
    unsure=_(
        "Channels that go without any loss: {removed}. What the penalty cost in the training, "
        "this many test images can't tell."
    ),
)
STEPS = Sentences(
    better=_("**Step by step is better**, with as many epochs."),
    worse=_(
        "**Step by step is worse here**, with as many epochs. Its last cut had only one of them: "
        "one possible reason, which this cell does not test."
    ),
    same=_("**Step by step is no better** with as many epochs."),
    unsure=UNSURE,
)
WORTH = Sentences(
    better=_("The weights that pruning kept were worth keeping: new ones end lower."),
    worse=_("**New weights end higher**: here the old ones were not worth keeping."),
    same=_("New weights end as high: keeping the old ones gained nothing."),
    unsure=UNSURE,
)
TICKET = Sentences(
    better=_(
        "**The choice of weights mattered**, not only their number. Was it their places, or their "
        "starting values? Only the same mask with newly drawn weights would tell. One seed is a "
        "hint."
    ),
    worse=_("**The random mask wins here.** One seed is a hint, no proof."),
    same=_("**The choice of weights did not matter here.** One seed is a hint, no proof."),
    unsure=UNSURE,
)
