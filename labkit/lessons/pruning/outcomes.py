"""Notebook 14: what was found dead, sensitive, too much at once, and worth its time."""

from collections.abc import Mapping, Sequence

from labkit.compression.prune import Lossless, Sensitivity
from labkit.lessons.prose import Prose

CLOSE = 0.005
"""Accuracies (shares) that are nearer to each other than this are called the same."""


def points_lost(lost: float) -> str:
    """Return what a share (0 to 1) of right answers lost is in percentage points, in words."""
    if abs(lost) < 0.0005:
        return "no change of accuracy"
    return f"{abs(100 * lost):.1f} points {'less' if lost > 0 else 'more'} accuracy"


def read_healthy(found: Lossless, folded: Sequence[str], difference: float) -> Prose:
    """Return what can be taken from a trained network without changing it.

    Args:
        found: of the trained model.
        folded: names of the batch norms that were folded.
        difference: the largest of an output, before and after folding.
    """
    if found.removed:
        dead = f"**{found.removed} channels provably do nothing** and are gone."
    else:
        dead = "**No channel provably does nothing**: a healthy network has none to give away."
    return Prose(
        f"{len(folded)} batch norms are folded into their convolutions; the outputs move by "
        f"{difference:.0e} at most. {dead}"
    )


def read_slim(found: Lossless, difference: float, without: float, with_penalty: float) -> Prose:
    """Return what a penalty on the batch norms' scales let go.

    Args:
        found: of the model that was trained with the penalty.
        difference: the largest of an output, before and after removing.
        without, with_penalty: accuracies of trainings without and with the penalty.
    """
    if not found.removed:
        result = "**Still no channel can go**: run a longer profile, or raise the penalty."
    else:
        result = (
            f"**{found.removed} channels go without any loss**: the outputs move by "
            f"{difference:.0e} at most."
        )
    return Prose(
        f"{result} The price was paid before, in the training: "
        f"{points_lost(without - with_penalty)}, against one without the penalty."
    )


def read_sensitivity(found: Sequence[Sensitivity]) -> Prose:
    """Return which group bears pruning best and which worst."""
    if not found:
        return Prose("Nothing was measured yet: run the scan again and let it do a few models.")
    hardest = max(result.ratio for result in found)
    lost = {f.group: f.before - f.value for f in found if f.ratio == hardest}
    if len(lost) < 2:
        return Prose("Stopped too early to compare: let the scan reach a second group.")
    worst, best = max(lost, key=lambda g: lost[g]), min(lost, key=lambda g: lost[g])
    return Prose(
        f"With {hardest:.0%} of its channels gone, **{worst}** costs {100 * lost[worst]:.0f} "
        f"points and **{best}** {100 * lost[best]:.0f}. Prune the second hard and the first "
        "little. What the scan does not see: losses of several groups do not add up, and "
        "fine-tuning mends much."
    )


def read_again(ends: Mapping[str, float], at_once: float, chance: float) -> Prose:
    """Return whether pruning step by step paid, and whether pruning paid at all.

    Args:
        ends: {"in one go", "step by step", "from new weights": accuracy}, of equally small models.
        at_once: accuracy after the one cut, before any fine-tuning.
        chance: accuracy of guessing.
    """
    one, steps, new = (ends[n] for n in ("in one go", "step by step", "from new weights"))
    ruined = "no better than guessing" if at_once < 1.5 * chance else "far from what it was"
    lines = [f"In one go leaves {at_once:.1%}: {ruined}. Fine-tuned: {one:.1%}."]
    if steps > one + CLOSE:
        lines.append(f"**Step by step is better: {steps:.1%}**, with as many epochs.")
    elif steps < one - CLOSE:
        lines.append(f"**Step by step is worse here: {steps:.1%}**: its last cut had one epoch.")
    else:
        lines.append(f"**Step by step is no better here: {steps:.1%}**.")
    best = max(one, steps)
    if best > new + CLOSE:
        lines.append(f"The same small network from new weights reaches {new:.1%}: pruning paid.")
    elif best < new - CLOSE:
        lines.append(
            f"**The same small network from new weights reaches {new:.1%}, more than either**: so "
            "far from the whole, its weights are worth nothing, only its shape."
        )
    else:
        lines.append(
            f"**The same small network from new weights reaches {new:.1%}, as much**: what pruning "
            "found was a size."
        )
    return Prose(" ".join(lines))


def read_ticket(rewound: float, random: float, whole: float) -> Prose:
    """Return whether the ticket won against a random mask of the same sparsity (shares)."""
    if rewound > random + CLOSE:
        verdict = "**the choice of weights mattered**, not only their number"
    elif rewound < random - CLOSE:
        verdict = "**the random mask wins here**"
    else:
        verdict = "**no difference here**: run a longer profile, or mask more"
    return Prose(
        f"Trained from the start: the ticket {rewound:.1%}, a random mask {random:.1%}, all "
        f"weights {whole:.1%}: {verdict}. One seed is a hint, no proof."
    )
