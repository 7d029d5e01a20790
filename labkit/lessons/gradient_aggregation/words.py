"""Notebook 12: what its results mean, one sentence for each call."""

from gettext import gettext as _

from labkit.lessons.reading import Sentences

# -- gradient aggregation --------------------------------------------------------------------

MESSAGES = Sentences(
    better=_("Every message costs its latency: gather gradients before you send them."),
    worse=_(
        "One large message takes longer here than many small ones. The latency can't be the "
        "reason: look at the picture below for what else it could be."
    ),
    same=_("Here it does not matter into how many messages the bytes are cut."),
)
COMPRESSION = Sentences(
    better=_("a step is shorter here."),
    worse=_("a step takes longer here, although fewer bytes are sent."),
    same=_("a step takes as long here, although fewer bytes are sent."),
)
FEEDBACK = Sentences(
    better=_("What rank 2 leaves out of a step is worth sending later: feedback does that."),
    worse=_("What rank 2 leaves out of a step does harm here when it comes later."),
    same=_("What rank 2 leaves out of a step is not missed here."),
)
LOW_RANK = Sentences(
    better=_("With feedback, rank 2 learns even faster here than the whole gradient."),
    worse=_("Feedback does not make up for all of it: the whole gradient learns faster."),
    same=_("With feedback, rank 2 learns as fast here as the whole gradient."),
)
PERIODS = Sentences(
    better=_("fewer means give more accuracy here."),
    worse=_("that many steps alone cost accuracy here."),
    same=_("fewer means cost nothing that matters here."),
)
DEALS = Sentences(
    better=_("Ranks that see different classes learn more here than ranks that see the same."),
    worse=_(
        "Even a mean after every step does not make up for ranks that see different classes. So "
        "it is not for want of messages; the next section looks further."
    ),
    same=_("With a mean after every step it does not matter here which classes a rank sees."),
)

# -- synchronized batch norm -----------------------------------------------------------------

SYNCHRONIZED = Sentences(
    better=_("Where ranks see different classes, synchronizing pays."),
    worse=_("Synchronizing makes it worse here, even where ranks see different classes."),
    same=_("Synchronizing changes nothing that matters here, even where ranks see other classes."),
)
AVERAGED = Sentences(
    better=_(
        "So much of it was the running statistics alone: each rank remembered those of its own "
        "classes. Their mean after the training costs one message."
    ),
    worse=_("The mean of the running statistics makes it worse here."),
    same=_("The running statistics were not the fault: their mean changes nothing that matters."),
)
IN_TRAINING = Sentences(
    better=_("So much more comes of synchronizing while it trains."),
    worse=_("Synchronizing while it trains loses that again."),
    same=_("Synchronizing while it trains adds nothing that matters."),
)
CONTROL = Sentences(
    better=_("Small batches alone make plain batch norm worse here, also where data are shuffled."),
    worse=_("Where data are shuffled, plain batch norm does better here, small as batches are."),
    same=_("Where data are shuffled, it makes no difference that matters, small as batches are."),
    unsure=_(
        "Where data are shuffled, these seeds can't tell: anything from {low:+.1f} to {high:+.1f} "
        "points may be due to small batches alone."
    ),
)
TRAINING_LOSS = Sentences(
    better=_("By its training loss you would take plain batch norm: it shows no fault at all."),
    worse=_("The training loss of plain batch norm is higher as well."),
    same=_("By their training loss you could not tell the two apart."),
)
STEP = Sentences(
    better=_("A step with synchronized norms is even shorter here."),
    worse=_(
        "A step with synchronized norms takes longer: two exchanges for each norm, and in each of "
        "them the ranks wait for each other."
    ),
    same=_("The exchanges of the norms cost nothing that matters here."),
)
