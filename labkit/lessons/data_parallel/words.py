"""Notebook 11: what its results mean."""

from collections.abc import Iterable, Sequence
from gettext import gettext as _

from torch import Tensor

from labkit.compare import Samples, Verdict
from labkit.compare.guess import Fate, fate_of
from labkit.distributed.parallel.averaging import CEILING, MEETING
from labkit.lessons.data_parallel.measure import WARMUP, Span, accuracies, overlap
from labkit.lessons.lesson import Prediction
from labkit.lessons.prose import Prose
from labkit.lessons.reading import Sentences, read
from labkit.plan.efficiency import StepCost
from labkit.plan.messages import ring_bytes

TUNED = "DDP, tuned"

# -- a training on all ranks -------------------------------------------------------------------

STOPPED = _("The training was stopped before its end: run the two cells above again.")
TRAINED = _(
    "**{sent:,.0f} kB a step from each rank, if its buckets travel in a ring**; the arithmetic "
    "said {predicted:,.0f} kB. Both count by the ring's formula, so neither confirms the other. "
    "{total:,.1f} MB in all.\n\n{verdicts}\n\nIt is not exactly the same training: batch norm "
    "takes its statistics from each rank's own part of a batch, and keeps those of its own images "
    "for the test (notebook 12)."
)


def read_training(
    ranks: Sequence[tuple[Tensor, int, int] | None], alone: Tensor, gradient: int
) -> Prose:
    """Return what a training on all ranks sent, and how its models compare with one process.

    Args:
        ranks: of each its scores on the test images, bytes sent and steps; None if it was stopped.
        alone: scores of one process with the joined batch.
        gradient: bytes.
    """
    done = [rank for rank in ranks if rank is not None]
    if len(done) < len(ranks):
        return Prose(STOPPED)
    scores = {f"rank {number}": {0: right} for number, (right, *_rest) in enumerate(done)}
    samples = accuracies([{"one process": {0: alone}, **scores}])
    _scores, sent, steps = done[0]
    said = TRAINED.format(
        sent=sent / steps / 1e3,
        predicted=ring_bytes(gradient, len(done)) / 1e3,
        total=sent / 1e6,
        verdicts=_listed(samples.verdict(name) for name in scores),
    )
    return Prose(said)


def _listed(verdicts: Iterable[Verdict]) -> str:
    return "\n".join(f"- {verdict}" for verdict in verdicts)


# -- how near to the ceiling, and how far beyond one process --------------------------------------

WAYS = _(
    "DDP, well set up, against no communication; and the same bytes in one message against "
    "many:\n\n{agreeing}\n\n{waiting}\n\nDDP against meeting alone, that is with the gradient sent "
    "as well:\n\n{sending}\n\nDDP with one thing changed:\n\n{settings}"
)
WAITING = Sentences(
    better=_(
        "Meeting is only more work, and yet these steps are shorter: this run does not say why."
    ),
    worse=_(
        "These ranks send no gradient: they lose that by waiting for each other and by the "
        "barrier's own messages. Fewer bytes of gradient would not win that back."
    ),
    same=_(
        "These ranks send no gradient. Waiting for each other and the barrier's own messages cost "
        "nothing that matters here."
    ),
    unsure=_(
        "These ranks send no gradient. Whether waiting for each other and the barrier's own "
        "messages cost them time, this run can't tell."
    ),
)


def read_ways(ways: Samples) -> Prose:
    """Return what agreeing costs, what many messages cost, and what meeting alone does.

    Args:
        ways: times of all ways to average.
    """
    others = [name for name in ways.arms if name.startswith("DDP, ") and name != TUNED]
    said = WAYS.format(
        agreeing=_listed([ways.verdict(TUNED, CEILING), ways.verdict("one message", "naive")]),
        waiting=read(ways.verdict(MEETING, CEILING), WAITING),
        sending=_listed([ways.verdict(TUNED, MEETING)]),
        settings=_listed(ways.verdict(name, TUNED) for name in others),
    )
    return Prose(said)


TINY = Sentences(
    better=_("Even with so little to compute, sharing the two parts pays here."),
    worse=_(
        "**A rank that does both parts alone is faster:** with so little to compute, agreeing "
        "costs more than sharing brings."
    ),
    same=_("What sharing the two parts brings, agreeing costs, to within {margin}."),
    unsure=_("Whether sharing the two parts pays, this run can't tell."),
)
SCALING = _(
    "- **Strong scaling**, the same images: {strong}\n- **Weak scaling**, as many images for each "
    "(1 would be perfect): {weak}\n- **Threads**, against one: {threads}\n- **Processes** against "
    "threads: {against}\n\n{guess}"
)


def read_scaling(scaling: Samples, guess: Prediction) -> Prose:
    """Return strong and weak scaling, what threads bring, and the prediction.

    Args:
        scaling: of the times of `measure.time_scaling`.
        guess: of how many times faster all processes are than one, for the same images.
    """
    strong = scaling.verdict("processes", "one process")
    said = SCALING.format(
        strong=strong,
        weak=scaling.verdict("processes", "one rank's part"),
        threads=scaling.verdict("threads", "one process"),
        against=scaling.verdict("processes", "threads"),
        guess=guess.against(strong),
    )
    return Prose(said)


# -- the model of a step -----------------------------------------------------------------------

COST = _(
    "An estimate. A step: {fixed:.2f} ms + {image:.0f} µs an image. A message: {latency:.0f} µs + "
    "{per_byte:.2f} ns a byte.\n\nFor {batch} images a rank, the model computes for "
    "{computing:.1f} ms; the ceiling above took {ceiling:.1f} ms a step. For *one message* between "
    "2 ranks, the model predicted {predicted:.2f} of the ceiling's speed; measured above: "
    "{measured}. {fate} It leaves out packing the gradients, and waiting for a slow rank."
)
FATES: dict[Fate, str] = {
    "right": _("That is as good as right: the difference is below {margin}."),
    "too low": _("That is {off:.0%} too low."),
    "too high": _("That is {off:.0%} too high."),
    "can't tell": _("It may well be right: this measurement can't tell the two apart."),
    "too few": _("Measured too few times to judge the model."),
}


def read_cost(cost: StepCost, ways: Samples, batch: int = 128) -> Prose:
    """Return the four numbers of a step, and how the model fares against what was measured.

    Args:
        cost: measured by `measure.time_costs`.
        ways: times of all ways to average, with two ranks and `batch` images each.
        batch: images a rank.
    """
    predicted, measured = cost.efficiency(batch, 2), ways.verdict("one message", CEILING)
    fate = FATES[fate_of(predicted, measured)].format(
        off=abs(predicted / measured.estimate.value - 1), margin=measured.quantity.margin_words
    )
    said = COST.format(
        fixed=1e3 * cost.fixed,
        image=1e6 * cost.image,
        latency=1e6 * cost.message.latency,
        per_byte=1e9 * cost.message.per_byte,
        batch=batch,
        computing=1e3 * cost.computing(batch),
        ceiling=ways.value(CEILING),
        predicted=predicted,
        measured=measured.figures,
        fate=fate,
    )
    return Prose(said)


# -- one step, and the rules for the rate --------------------------------------------------------

OVERLAP = _(
    "The gradient left in {messages} messages. Of all but the last, {early} began while this rank "
    "still was in its backward pass. The last one can only leave when all gradients are there: the "
    "end of the backward bar is waiting for it. Some message was on its way for {covered:.1f} ms "
    "of a step of {step:.1f} ms. A message's bar holds waiting, too: it ends when the *other* rank "
    "has come as far."
)


def read_timeline(spans: Sequence[Span]) -> Prose:
    """Return how much of the sending happened behind the backward pass."""
    return Prose(OVERLAP.format(**overlap(spans)))


RULE = Sentences(
    better=_("**The linear scaling rule does better than the small batch here.**"),
    worse=_("**The linear scaling rule does not save the accuracy of the small batch here.**"),
    same=_("**The linear scaling rule holds here:** the large batch learns as much."),
    unsure=_("Whether the linear scaling rule holds here, these seeds can't tell."),
)
RATES = _(
    "What the larger rate brings, and what warm-up does to it:\n\n{verdicts}\n\nOf only {steps} "
    "steps, warm-up gives {slow} to lower rates."
)


def read_rules(rules: Samples, steps: int) -> Prose:
    """Return what the scaled rate does, and what warm-up does to it.

    Args:
        rules: of `measure.train_rules`.
        steps: of a training with the large batch.
    """
    larger = rules.verdict("scaled rate", "same rate")
    warm = rules.verdict("scaled rate, warm-up", "scaled rate")
    rates = RATES.format(verdicts=_listed([larger, warm]), steps=steps, slow=round(WARMUP * steps))
    return Prose(f"{read(rules.verdict('scaled rate'), RULE)}\n\n{rates}")
