"""Is it cheaper, and not worse? Two verdicts, read together.

A smaller model is worth having when two things hold: it is faster by more than the margin, and it
is known to lose no more than what may be lost. "No difference found" is not enough for the second:
with few examples nothing is ever found.
"""

from dataclasses import dataclass

from labkit.compare.verdict import Verdict


@dataclass(frozen=True)
class Reading:
    """Whether a variant is cheaper and not worse. `str` is the sentence.

    Attributes:
        speed: the verdict on the latency.
        quality: the verdict on the metric; its margin is what may be lost.
    """

    speed: Verdict
    quality: Verdict

    @property
    def call(self) -> str:
        """What may be claimed.

        "cheaper and not worse", "cheaper but worse", "not cheaper", "too few" or "can't tell".
        """
        if self.speed.call in ("worse", "no difference that matters"):
            return "not cheaper"
        if self.speed.call != "better":
            return self.speed.call
        if self.quality.not_worse:
            return "cheaper and not worse"
        if self.quality.call == "worse":
            return "cheaper but worse"
        return "too few" if self.quality.too_few else "can't tell"

    def __str__(self) -> str:
        names = f"{self.speed.candidate} over {self.speed.baseline}"
        quantity = self.quality.quantity
        return (
            f"{names}: {self.call}: {self.speed.figures} in speed, {quantity.name} "
            f"{self.quality.figures}, {quantity.margin_words} may be lost"
        )

    def __repr__(self) -> str:
        return str(self)
