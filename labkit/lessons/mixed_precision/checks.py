"""The exercises of notebook 03."""

from collections.abc import Mapping

from labkit.lessons.check import exercise, real, wrong_number
from labkit.lessons.mixed_precision.measure import allowed
from labkit.measure import Ceiling, Standing
from labkit.measure.formats import FORMATS


@exercise(
    hint="All 10 fraction bits are set: 1 + 1/2 + 1/4 + … = 2 - 2**-10. Of the exponent's codes, "
    "the highest means infinity; the one below it means 2**15.",
    praise="That is torch.finfo(torch.float16).max. Activations that grow beyond it overflow, "
    "and no loss scale mends that.",
)
def largest_fp16(answer: object) -> str | None:
    """Check the largest finite number of fp16."""
    right = FORMATS["fp16"].largest
    spacing = "fp16 does not have it: there is a spacing between the largest number and 2**16."
    too_far = "Largest fraction times largest power of two."
    return wrong_number(answer, right, 0, too_far, {2**16: spacing, 2**16 - 1: spacing})


@exercise(
    hint="Normal means at least 2**-14. How many times too small is 1e-8? Round up to a power of "
    "two.",
    praise="GradScaler starts at 65,536, which leaves room for gradients smaller still.",
)
def smallest_scale(answer: object) -> str | None:
    """Check the smallest power of two that makes 1e-8 a normal number of fp16."""
    form, gradient = FORMATS["fp16"], 1e-8
    right = next(2**k for k in range(64) if gradient * 2.0**k >= form.smallest_normal)
    problem, scale = (
        wrong_number(answer, right, 0, "Try torch.tensor(1e-8 * scale).half()."),
        real(answer),
    )
    if problem is None or scale is None or not 1 < scale < 2**64:
        return problem
    fate = form.fate(gradient * scale)
    if fate in ("zero", "subnormal"):
        return f"Too small: {gradient:g} x {scale:g} is {fate} in fp16."
    if scale < right:
        return f"{scale:g} would do, but the next power of two is wanted."
    return f"{scale:g} is not the smallest power of two that does it."


@exercise(
    hint="`measure.predict_seconds(flops, bytes, roof, dtype=name)` is the shortest time; the "
    "dtype is the arm's name, and `standings` has flops and bytes. Divide fp32's by the other's.",
    praise="So it would be if both steps reached the roof. A real step comes only part of the way.",
)
def allowed_speedup(answer: object, standings: Mapping[str, Standing], roof: Ceiling) -> str | None:
    """Check how many times faster than fp32 the second step would be, were both on the roof."""
    right = allowed(standings, roof)
    candidate = list(standings)[1]
    peaks = roof.peak(candidate) / roof.peak("fp32")
    mistakes = {
        peaks: "That is the ratio of the two flat roofs. Look which limit your steps lie under.",
        1 / right: "Upside down: fp32's time belongs on top.",
    }
    too_far = "Shortest fp32 time / shortest time of the other."
    return wrong_number(answer, right, 0.02, too_far, mistakes)
