"""Notebook 13: what its results mean, one sentence for each call."""

from gettext import gettext as _

from labkit.lessons.reading import Sentences

# -- pipeline --------------------------------------------------------------------------------

IDLE = Sentences(
    better=_(
        "More microbatches leave less of the ranks' time idle. The formula, which counts nothing "
        "but passes of equal length, says {many:.0%} instead of {few:.0%}."
    ),
    worse=_(
        "More microbatches leave more of the ranks' time idle here, against the formula: it says "
        "{many:.0%} instead of {few:.0%}, but counts nothing but passes of equal length."
    ),
    same=_(
        "As much of the ranks' time is idle in both. The formula says {many:.0%} and {few:.0%}, "
        "but counts nothing but passes of equal length."
    ),
)
PIPELINE_TIME = Sentences(
    better=_("By the clock, the step with more microbatches is shorter here."),
    worse=_("By the clock, the step with more microbatches is longer here: choose by the clock."),
    same=_("By the clock, it makes no difference that matters: choose by what memory allows."),
)

# -- tensor ----------------------------------------------------------------------------------

LAYERS = Sentences(
    better=_("splitting the layer pays here."),
    worse=_("what splitting adds is more than it saves here."),
    same=_("splitting the layer changes nothing that matters here."),
)

# -- which split -----------------------------------------------------------------------------

RACE = Sentences(
    better=_(
        "faster than one process. Two processes use two cores, one process uses one: up to 2x is "
        "no merit of the split."
    ),
    worse=_("slower than one process here, although there are two."),
    same=_("as fast as one process here, although there are two."),
)
AGAINST_DATA = Sentences(
    better=_("faster here than plain data parallel."),
    worse=_("slower here than plain data parallel: you would not take it for its speed."),
    same=_("as fast here as plain data parallel."),
)
