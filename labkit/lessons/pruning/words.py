"""Pruning: what each outcome of its measurements means."""

from gettext import gettext as _

from labkit.lessons.reading import Sentences

MASKS = Sentences(
    better=_("Zeros do save time here: some kernel of this machine skips them."),
    worse=_("The zeros made it slower here, which nobody expects of a dense kernel."),
    same=_("**No faster.** A dense kernel multiplies by zero as fast as by anything else."),
)
SPARSE = Sentences(
    better=_("better than all weights, by more than the margin."),
    worse=_("more than the margin is lost: too many zeros, or taken away too fast."),
    same=_("as accurate as all weights, within the margin."),
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
        "promises."
    ),
    worse=_("{fewer:.2f} times fewer operations, and slower: so narrow layers do not suit it."),
    same=_("{fewer:.2f} times fewer operations, and no time saved."),
)
WIDTHS = Sentences(
    better=_("one channel above a multiple is even cheaper."),
    worse=_(
        "one channel above a multiple of {vector} makes every channel dearer: the last vector is "
        "nearly empty and costs what a full one does. Prune to multiples."
    ),
    same=_("no step here: one channel more costs a channel more."),
    unsure=_("whether there is a step, this noise does not show."),
)
PENALTY = Sentences(
    better=_("{removed} channels go without any loss, and the penalty even helped the training."),
    worse=_(
        "{removed} channels go without any loss now. The price was paid before, in the training "
        "with the penalty."
    ),
    same=_("{removed} channels go without any loss, and the penalty cost nothing that matters."),
    unsure=_(
        "{removed} channels go without any loss now. What the penalty cost in the training, this "
        "many test images can't tell."
    ),
)
STEPS = Sentences(
    better=_("**Step by step is better**, with as many epochs."),
    worse=_("**Step by step is worse here**: its last cut had one epoch to recover."),
    same=_("**Step by step is no better**: the epochs count, not when they come."),
)
WORTH = Sentences(
    better=_("The weights that pruning kept were worth keeping: new ones end lower."),
    worse=_("**New weights end higher**: of so small a rest only the shape was worth keeping."),
    same=_("New weights end as high: pruning found a good size, and its weights did not matter."),
)
TICKET = Sentences(
    better=_("**The choice of weights mattered**, not only their number. One seed is a hint."),
    worse=_("**The random mask wins here.** One seed is a hint, no proof."),
    same=_("**The choice of weights did not matter here.** One seed is a hint, no proof."),
)
