"""Notebook 15: the checks of its exercises."""

from labkit.compression.quantize.affine import grid
from labkit.lessons.check import exercise, wrong_number

LOW, HIGH = -1.0, 3.0  # the range of the first exercise
WIDE, NARROW = 10.0, 0.1  # how far the weights of the two channels of the second one reach
RESNET18_PARAMETERS = 11_689_512
GROUP, SCALE_BYTES = 32, 4


@exercise(
    hint="256 integers have how many steps between them? The zero point is the integer that 0 "
    "lands on. Answer with a pair: `(scale, zero_point)`.",
    praise="Zero itself is exact: padding and ReLU need that more than either end does.",
)
def scale_and_zero_point(answer: object) -> str | None:
    """Check scale and zero point of an affine 8-bit grid from -1 to 3."""
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        return f"A pair is wanted, `(scale, zero_point)`, not {answer!r}."
    right = grid(LOW, HIGH)
    return _wrong_scale(answer[0], float(right.scale)) or _wrong_zero_point(
        answer[1], int(right.zero_point)
    )


def _wrong_scale(scale: object, right: float) -> str | None:
    mistakes = {
        right * 255 / 256: "256 integers have 255 steps between them.",
        right * 255 / 127: "That is half of the integers: an affine grid uses all 256.",
        right * 255 / 128: "That is half of the integers: an affine grid uses all 256.",
    }
    problem = wrong_number(scale, right, 1e-3, "Length of the range / number of steps.", mistakes)
    return problem and f"The scale: {problem}"


def _wrong_zero_point(zero_point: object, right: int) -> str | None:
    mistakes = {
        right - 128: "That zero point belongs to integers from -128; an affine grid starts at 0.",
        63.75: "The zero point is an integer: round it.",
    }
    problem = wrong_number(zero_point, right, 0, "Round -low / scale.", mistakes)
    return problem and f"The zero point: {problem}"


@exercise(
    hint="One symmetric scale for both: 10 must fit into 127 steps. How many steps is 0.1 then?",
    praise="A scale of its own gives that channel all of them. That is why weights are quantized "
    "per channel.",
)
def different_integers(answer: object) -> str | None:
    """Check how many different integers a channel gets that shares the scale of a wider one."""
    steps = int(NARROW / (WIDE / 127) + 0.5)
    mistakes = {steps: "Do not forget zero and the other sign."}
    mistakes |= dict.fromkeys((254, 255, 256), "So many it would have with a scale of its own.")
    too_far = "Divide 0.1 by the scale, and round."
    return wrong_number(answer, 2 * steps + 1, 0, too_far, mistakes)


@exercise(
    hint="Half a byte a weight, and 4 bytes for each 32 of them.",
    praise="In groups of 32 the scales take a fifth of the file. Larger groups cost less and round "
    "more coarsely.",
)
def resnet_megabytes(answer: object) -> str | None:
    """Check the megabytes of ResNet-18 in 4 bits, with an fp32 scale for each 32 weights."""
    right = RESNET18_PARAMETERS * (0.5 + SCALE_BYTES / GROUP) / 1e6
    mistakes = {
        RESNET18_PARAMETERS / 2 / 1e6: "The scales have to be stored, too.",
        1e6 * right: "Those are bytes; megabytes (10⁶ bytes) are wanted.",
        RESNET18_PARAMETERS * (1 + SCALE_BYTES / GROUP) / 1e6: "That is with 8 bits a weight.",
        8 * right: "Those are megabits.",
    }
    too_far = "Bytes of the weights + bytes of the scales."
    return wrong_number(answer, right, 0.01, too_far, mistakes)
