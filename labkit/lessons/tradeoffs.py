"""What a tradeoff of accuracy and latency means, in words. Notebooks 14 and 15 end in one."""

from labkit.compare import Tradeoff
from labkit.lessons.prose import Prose, escaped

ALLOWED = 0.5
"""Points of accuracy that a cheaper model may lose."""


def read_tradeoff(tradeoff: Tradeoff) -> Prose:
    """Return for each variant whether it is cheaper and what it loses, and which none beats."""
    names = [name for name in tradeoff.variants if name != tradeoff.baseline]
    if not tradeoff.front:  # it was stopped before the first round or the first answers
        return Prose("Nothing was measured yet: run it again and let it do a few rounds.")
    lines = [f"- {escaped(tradeoff.reading(name, allowed=ALLOWED))}" for name in names]
    lines.append(
        f"\nNot beaten in both, by point estimates: **{escaped('; '.join(tradeoff.front))}**."
    )
    return Prose("\n".join(lines))
