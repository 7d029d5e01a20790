"""The exercises of notebook 00."""

from labkit.compare import Race
from labkit.lessons.check import exercise, wrong_number
from labkit.measure import Ceiling


@exercise(
    hint="`x.stride()` gives the steps for (image, channel, row, column). Which of the four is one "
    "pixel to the right?",
    praise="In channels_last all channels of one pixel lie side by side, so the next pixel is as "
    "many numbers away as there are channels.",
)
def next_pixel(answer: object) -> str | None:
    """Check the distance in memory of the next pixel to the right, 16 channels, channels_last."""
    too_far = "Count the numbers that lie between two neighbours."
    return wrong_number(answer, 16, 0, too_far, {1: "That is the next channel of the same pixel."})


VERDICTS = ("faster", "can't tell", "slower")


@exercise(
    hint="Look where 1 lies: below the interval, within it, or above it.",
    praise="Only an interval that keeps clear of 1 is a verdict.",
)
def three_verdicts(answer: object) -> str | None:
    """Check the words for 1.08 to 1.21, 0.97 to 1.04 and 0.55 to 0.61."""
    if not isinstance(answer, list | tuple) or len(answer) != 3:
        return "A list of three words is wanted."
    for number, (word, right) in enumerate(zip(answer, VERDICTS, strict=True), start=1):
        if word not in VERDICTS:
            return f"{word!r} is none of {', '.join(VERDICTS)}."
        if word != right:
            return f"Look at interval {number} again: on which side of 1 does it lie?"
    return None


@exercise(
    hint="At the ridge the slope meets the flat roof: intensity * bandwidth = peak. `roof.peak()` "
    "is in FLOP/s, `roof.bandwidth.value` in GB/s.",
    praise="Work with fewer FLOP a byte than this waits for memory; work with more waits for the "
    "arithmetic.",
)
def ridge_point(answer: object, roof: Ceiling) -> str | None:
    """Check the intensity (FLOP/byte) at which fp32 convolution meets the bandwidth."""
    right = roof.ridge("fp32")
    return wrong_number(answer, right, 0.02, "Mind the units: giga is 1e9 in both.")


@exercise(
    hint='`base.but(batch_size=256)` differs in one thing. Put both into `Race({"128": ..., '
    '"256": ...})`.',
    praise="One field differs, so whatever the race finds is the batch size's doing.",
)
def fair_race(answer: object) -> str | None:
    """Check that the answer is a race of batch size 128 against 256 and nothing else."""
    if not isinstance(answer, Race):
        return f"A Race is wanted, not {type(answer).__name__}."
    if len(answer.arms) != 2:
        return f"Two arms are wanted, this race has {len(answer.arms)}."
    one, other = answer.arms.values()
    differences = one.differences(other)
    if differences != ("batch_size",):
        found = ", ".join(differences) or "nothing"
        return f"The arms must differ in batch_size alone; they differ in: {found}."
    if {one.batch_size, other.batch_size} != {128, 256}:
        return f"Batch sizes 128 and 256 are wanted, not {one.batch_size} and {other.batch_size}."
    return None
