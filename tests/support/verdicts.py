"""A verdict for each call, to see what a lesson says of it."""

import math

from labkit.compare import STEP_TIME, Quantity, Verdict
from labkit.compare.verdict import CALLS
from labkit.measure import Estimate


def planted(
    call: str, quantity: Quantity = STEP_TIME, candidate: str = "b", baseline: str = "a"
) -> Verdict:
    """Return a verdict of `quantity` that makes this call."""
    ratio, step = quantity.kind == "ratio", quantity.margin or 0.02
    same, sign = quantity.same, 1 if ratio or quantity.higher_is_better else -1
    value, half = {
        "better": (same + sign * 10 * step, step),
        "worse": (same - sign * 10 * step, step),
        "no difference that matters": (same, step / 4),
        "can't tell": (same + step, 3 * step),
        "too few": (same + step, math.inf),
    }[call]
    verdict = Verdict(candidate, baseline, quantity, Estimate(value, value - half, value + half, 9))
    assert verdict.call == call
    return verdict


def each_call(quantity: Quantity = STEP_TIME, **names: str) -> dict[str, Verdict]:
    """Return {call: a verdict that makes it}."""
    return {call: planted(call, quantity, **names) for call in CALLS}
