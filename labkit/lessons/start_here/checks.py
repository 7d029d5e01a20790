"""The exercises of notebook 00."""

from labkit.compare import STEP_TIME, Race, Verdict
from labkit.lessons.check import exercise, wrong_number
from labkit.measure import Ceiling, Estimate


@exercise(
    hint="`x.stride()` gives the steps for (image, channel, row, column). Which of the four is one "
    "pixel to the right?",
    praise="In channels_last all channels of one pixel lie side by side, so the next pixel is as "
    "many numbers away as there are channels.",
)
def next_pixel(answer: object) -> str | None:
    """Check the distance in memory of the next pixel to the right, 16 channels, channels_last."""
    too_far = "By how many places does the position in memory change from one pixel to the next?"
    return wrong_number(answer, 16, 0, too_far, {1: "That is the next channel of the same pixel."})


INTERVALS = ((1.08, 1.21), (0.97, 1.04), (0.55, 0.61), (0.995, 1.006), (1.01, 1.06))
WORDS = {
    "faster": "better",
    "slower": "worse",
    "slower here": "worse",
    "no difference that matters": "no difference that matters",
    "no difference": "no difference that matters",
    "can't tell": "can't tell",
    "cannot tell": "can't tell",
}


@exercise(
    hint="The margin of 2 % makes two edges, at 0.98 and 1.02. Is the whole interval above, below "
    "or between them, or does it reach across one?",
    praise="What decides is the whole interval and the margin, never the single number.",
)
def five_verdicts(answer: object) -> str | None:
    """Check the words for the five intervals, as `Verdict` decides them."""
    if not isinstance(answer, list | tuple) or len(answer) != len(INTERVALS):
        return f"A list of {len(INTERVALS)} words is wanted."
    calls = [Verdict("", "", STEP_TIME, Estimate(1.0, *ends, 99)).call for ends in INTERVALS]
    for number, (word, right) in enumerate(zip(answer, calls, strict=True), start=1):
        plain = word.strip().lower().replace("’", "'") if isinstance(word, str) else word
        if plain not in WORDS:
            return f"{word!r} is none of the lab's words: {', '.join(WORDS)}."
        if WORDS[plain] != right:
            return f"Look at interval {number} again: where do the two edges of the margin lie?"
    return None


@exercise(
    hint="At the ridge the slope meets the flat roof: intensity * bandwidth = peak. `roof.peak()` "
    "is in FLOP/s, `roof.bandwidth.value` in GB/s (1 GB is 1e9 bytes).",
    praise="With fewer FLOP a byte than this memory sets the limit, with more arithmetic does. A "
    "step may stay far below either.",
)
def ridge_point(answer: object, roof: Ceiling) -> str | None:
    """Check the intensity (FLOP/byte) at which fp32 convolution meets the bandwidth."""
    right = roof.ridge("fp32")
    units = "`roof.peak` is in FLOP/s, `roof.bandwidth.value` in GB/s (1 GB is 1e9 bytes)."
    return wrong_number(answer, right, 0.02, units)


@exercise(
    hint='`base.but(precision="bf16")` differs in one thing. Put both into a race: '
    '`Race({"fp32": ..., "bf16": ...})`.',
    praise="One field differs and a step does the same work, so what the race finds is the number "
    "format's doing.",
)
def fair_race(answer: object) -> str | None:
    """Check that the answer is a race of fp32 against bf16 that differs in nothing else."""
    if not isinstance(answer, Race):
        return f"A Race is wanted, not {type(answer).__name__}."
    if len(answer.arms) != 2:
        return f"Two arms are wanted, this race has {len(answer.arms)}."
    one, other = answer.arms.values()
    differences = one.differences(other)
    if differences != ("precision",):
        found = ", ".join(differences) or "nothing"
        return f"The arms must differ in precision alone; they differ in: {found}."
    if {one.precision, other.precision} != {"fp32", "bf16"}:
        return f"fp32 and bf16 are wanted, not {one.precision} and {other.precision}."
    return None
