"""How a guess fared against what was measured: decided as everything else, by interval and margin.

A reader who predicts 1.00x where a race finds 0.987x was right, if 2 % is the smallest difference
that matters. So a guess is judged as a comparison is: what was measured is compared with the guess.
"""

import math
from dataclasses import replace
from typing import Literal, TypeAlias

from labkit.compare.verdict import Call, Verdict
from labkit.measure.statistics import Estimate

Fate: TypeAlias = Literal["right", "too low", "too high", "can't tell", "too few"]

_FATES: dict[Call, Fate] = {
    "better": "too low",
    "worse": "too high",
    "no difference that matters": "right",
    "can't tell": "can't tell",
    "too few": "too few",
}


def fate_of(guess: float, verdict: Verdict) -> Fate:
    """Return how a guess of the verdict's figure fared.

    Args:
        guess: of `verdict.estimate.value`: a ratio, or a difference in its unit.
        verdict: what was measured.

    Raises:
        ValueError: the guess is not a finite number.
    """
    if not math.isfinite(guess):
        raise ValueError(f"guess must be a finite number, got {guess!r}")
    e, quantity = verdict.estimate, verdict.quantity
    if quantity.kind == "ratio":
        if guess <= 0:  # no ratio is: whatever was found is infinitely many times more
            return "too few" if verdict.too_few else "too low"
        beside = Estimate(e.value / guess, e.low / guess, e.high / guess, e.n)
    else:
        beside = Estimate(e.value - guess, e.low - guess, e.high - guess, e.n)
    # "Better" must mean "more than guessed", also of a loss.
    upwards = replace(quantity, higher_is_better=True)
    return _FATES[replace(verdict, quantity=upwards, estimate=beside).call]
