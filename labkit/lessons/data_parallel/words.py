"""Notebook 11: what its results mean."""

from collections.abc import Sequence
from gettext import gettext as _

from torch import Tensor

from labkit.compare import Samples
from labkit.compare.guess import Fate, fate_of
from labkit.distributed.parallel.averaging import CEILING, MEETING
from labkit.lessons.data_parallel.measure import WARMUP, Span, accuracies, overlap
from labkit.lessons.lesson import Prediction
from labkit.lessons.prose import Prose
from labkit.lessons.reading import Sentences, read, read_all
from labkit.plan.efficiency import StepCost
from labkit.plan.messages import ring_bytes

TUNED = "DDP, tuned"

# -- a training on all ranks -------------------------------------------------------------------

STOPPED = _("The training was stopped before its end: run the two cells above again.")
SENT = _(
    "**{sent:,.0f} kB a step from each rank**; the arithmetic said {predicted:,.0f} kB. "
    "{total:,.1f} MB in all."
)
TRAINED = Sentences(
    better=_("more right answers than one process gave, from as many images."),
    worse=_("fewer right answers than one process gave, from as many images."),
    same=_("as good as one process."),
    unsure=_("may be as good as one process, or not: these test images can't tell."),
)
NORM = _(
    "It is not exactly the same training: batch norm takes its statistics from each rank's own "
    "part of a batch, and keeps those of its own images for the test (notebook 12)."
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
    of_ranks = {f"rank {number}": scores for number, (scores, *_) in enumerate(done)}
    samples = accuracies({"one process": alone, **of_ranks})
    _scores, sent, steps = done[0]
    said = SENT.format(
        sent=sent / steps / 1e3, predicted=ring_bytes(gradient, len(done)) / 1e3, total=sent / 1e6
    )
    compared = read_all({name: samples.verdict(name) for name in of_ranks}, TRAINED)
    return Prose(f"{said}\n\n{compared}\n\n{NORM}")


# -- how near to the ceiling -------------------------------------------------------------------

AGREEING = Sentences(
    better=_("Faster than ranks that send nothing can't be: something else used the machine."),
    worse=_("That is the price of agreeing, with DDP well set up."),
    same=_("Agreeing costs next to nothing here, with DDP well set up."),
)
PACKING = Sentences(
    better=_("The same bytes in one message take less time than in one message a tensor."),
    worse=_("One message takes longer here, although the bytes are the same."),
    same=_("It makes no difference here that the naive way sends many messages."),
)
WAITING = Sentences(
    better=_("Waiting can't make a step shorter: something else used the machine."),
    worse=_(
        "These ranks send no gradient: they lose that by waiting for the slower one. Sending fewer "
        "bytes will not make up for that wait."
    ),
    same=_("These ranks send no gradient. Waiting for each other costs next to nothing here."),
    unsure=_("These ranks send no gradient. Whether waiting costs them time, this run can't tell."),
)
SENDING = Sentences(
    better=_("DDP loses less than ranks that wait after backward: it meets while it computes."),
    worse=_("So waiting is not all: packing and sending the gradients cost time as well."),
    same=_("So all that DDP loses may be waiting for the slower rank."),
    unsure=_("Whether packing and sending cost more than that, this run can't tell."),
)
SETTINGS = Sentences(
    better=_("faster than *tuned*: worth setting here."),
    worse=_("slower than *tuned*."),
    same=_("as fast as *tuned*."),
    unsure=_("can't be told apart from *tuned*."),
    few=_("measured too few times to be compared with *tuned*."),
)


def read_ways(ways: Samples) -> Prose:
    """Return what agreeing costs, what many messages cost, and how much of it is waiting.

    Args:
        ways: times of all ways to average.
    """
    questions = (
        (TUNED, CEILING, AGREEING),
        ("one message", "naive", PACKING),
        (MEETING, CEILING, WAITING),
        (TUNED, MEETING, SENDING),
    )
    parts = [read(ways.verdict(way, over), sentences) for way, over, sentences in questions]
    others = [name for name in ways.arms if name.startswith("DDP, ") and name != TUNED]
    settings = {name.removeprefix("DDP, "): ways.verdict(name, TUNED) for name in others}
    return Prose("\n\n".join([*parts, read_all(settings, SETTINGS)]))


TINY = Sentences(
    better=_("Even so small a network gains by sharing the work here."),
    worse=_("**One process alone is faster:** with so little to compute, agreeing is most of it."),
    same=_("All that is gained by sharing the work is lost by agreeing."),
)

# -- scaling -----------------------------------------------------------------------------------

STRONG = Sentences(
    better=_("**Strong scaling:** the same images on all processes take less time than on one."),
    worse=_("**Strong scaling:** the same images on all processes take more time than on one."),
    same=_("**Strong scaling:** the same images on all processes take as long as on one."),
)
WEAK = Sentences(
    better=_("**Weak scaling:** faster than perfect can't be. Something else used the machine."),
    worse=_("**Weak scaling:** with as many images for each, all of them together take longer."),
    same=_("**Weak scaling:** perfect, to within {margin}."),
)
THREADS = Sentences(
    better=_("Processes beat threads here."),
    worse=_("Threads beat processes here."),
    same=_("Threads and processes are equally fast here."),
    unsure=_("Between threads and processes this run can't tell."),
)


def read_scaling(scaling: Samples, guess: Prediction) -> Prose:
    """Return strong and weak scaling, threads against processes, and the prediction.

    Args:
        scaling: of the times of `measure.time_scaling`.
        guess: of how many times faster all processes are than one, for the same images.
    """
    strong = read(scaling.verdict("processes", "one process"), STRONG, guess)
    weak = read(scaling.verdict("processes", "one rank's part"), WEAK)
    between = read(scaling.verdict("processes", "threads"), THREADS)
    return Prose(f"{strong}\n\n{weak}\n\n{between}")


# -- the model of a step -----------------------------------------------------------------------

COST = _(
    "A step: {fixed:.2f} ms + {image:.0f} µs an image. A message: {latency:.0f} µs + "
    "{per_byte:.2f} ns a byte.\n\nFor {batch} images and 2 ranks, the model promises "
    "{predicted:.2f} of the ceiling's speed. Measured above, with one message: {measured}. {fate}"
)
FATES: dict[Fate, str] = {
    "right": _("They agree to within {margin}."),
    "too high": _(
        "**The model promises too much.** It leaves out two costs: packing the gradients, and "
        "waiting for a slow rank. Read what follows as the best case."
    ),
    "too low": _("The model promises too little: the machine may have been busier for its turn."),
    "can't tell": _("The interval is too wide to say whether the model holds."),
    "too few": _("That is too few to say whether the model holds."),
}


def read_cost(cost: StepCost, ways: Samples, batch: int = 128) -> Prose:
    """Return the four numbers of a step, and how the model fares against what was measured.

    Args:
        cost: measured by `measure.time_costs`.
        ways: times of all ways to average, with two ranks and `batch` images each.
        batch: images a rank.
    """
    predicted, verdict = cost.efficiency(batch, 2), ways.verdict("one message", CEILING)
    fate = FATES[fate_of(predicted, verdict)].format(margin=verdict.quantity.margin_words)
    said = COST.format(
        fixed=1e3 * cost.fixed,
        image=1e6 * cost.image,
        latency=1e6 * cost.message.latency,
        per_byte=1e9 * cost.message.per_byte,
        batch=batch,
        predicted=predicted,
        measured=verdict.figures,
        fate=fate,
    )
    return Prose(said)


# -- one step, and the rules for the rate --------------------------------------------------------

OVERLAP = _(
    "The gradient left in {messages} messages. {early} of them began while this rank still was in "
    "its backward pass. Some message was on its way for {covered:.1f} ms of a step of {step:.1f} "
    "ms. A bar holds waiting, too: a message ends when the *other* rank has come as far."
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
LARGER = Sentences(
    better=_("But the larger rate gets further than the old one in as few steps."),
    worse=_("The larger rate gets less far than the old one: it is too large."),
    same=_("The larger rate gets as far as the old one."),
    unsure=_("Whether the larger rate gets further than the old one, these seeds can't tell."),
)
WARM = Sentences(
    better=_("Warm-up helps: the scaled rate is too large for the first steps."),
    worse=_("Warm-up costs accuracy here. Of only {steps} steps it gives {slow} to lower rates."),
    same=_("Warm-up makes no difference here."),
    unsure=_(
        "Whether warm-up helps, these seeds can't tell. Of only {steps} steps it gives {slow} to "
        "lower rates."
    ),
)


def read_rules(rules: Samples, steps: int) -> Prose:
    """Return what the scaled rate does, and what warm-up does to it.

    Args:
        rules: of `measure.rule_samples`.
        steps: of a training with the large batch.
    """
    slow = round(WARMUP * steps)
    parts = [
        read(rules.verdict("scaled rate"), RULE),
        read(rules.verdict("scaled rate", "same rate"), LARGER),
        read(rules.verdict("scaled rate, warm-up", "scaled rate"), WARM, steps=steps, slow=slow),
    ]
    return Prose("\n\n".join(parts))
