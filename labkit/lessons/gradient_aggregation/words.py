"""Notebook 12: what its results mean, one sentence for each call."""

from gettext import gettext as _

from labkit.lessons.reading import Sentences

# -- gradient aggregation --------------------------------------------------------------------

MESSAGES = Sentences(
    better=_(
        "One large message is faster here: gather gradients before you send them. Every message "
        "costs its latency; where marks lie above the lines in the picture below, many messages "
        "cost more than their latencies alone."
    ),
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
    better=_("Rank 2 with feedback ends with an even lower loss here than the whole gradient."),
    worse=_("Rank 2 with feedback ends with a higher loss here than the whole gradient."),
    same=_("Rank 2 with feedback ends with as low a loss here as the whole gradient."),
)
PERIODS = Sentences(
    better=_("fewer means give more accuracy here."),
    worse=_("that many steps alone cost accuracy here."),
    same=_("fewer means cost nothing that matters here."),
)
DEALS = Sentences(
    better=_("Ranks that see different classes learn more here than ranks that see the same."),
    worse=_(
        "Even a mean of the weights after every step does not make up for ranks that see "
        "different classes: something else differs. The next section looks at batch norm."
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
    same=_("One mean of the running statistics changes nothing here that matters."),
)
IN_TRAINING = Sentences(
    better=_("Synchronizing while it trains does better than one mean after the training."),
    worse=_("Synchronizing while it trains does worse than one mean after the training."),
    same=_("Synchronizing while it trains adds nothing that matters to one mean afterwards."),
)
CONTROL = Sentences(
    better=_("Small batches alone make plain batch norm worse here, also where data are shuffled."),
    worse=_("Where data are shuffled, plain batch norm does better here, small as batches are."),
    same=_("Where data are shuffled, it makes no difference that matters, small as batches are."),
    unsure=_(
        "Where data are shuffled, these seeds can't tell: any difference from {low:+.1f} to "
        "{high:+.1f} points fits them."
    ),
)
TRAINING_LOSS = Sentences(
    better=_("By its training loss you would take plain batch norm: it shows no fault at all."),
    worse=_("The training loss of plain batch norm is higher."),
    same=_("By their training loss you could not tell the two apart."),
)
STEP = Sentences(
    better=_("A step with synchronized norms is even shorter here."),
    worse=_(
        "A step with synchronized norms takes longer. It has two exchanges for each norm, and "
        "the lab's layer is not fused: this run does not tell the two apart."
    ),
    same=_("The exchanges of the norms cost nothing that matters here."),
)
