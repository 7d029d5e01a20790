"""What a result means, in words: one sentence for each call, chosen by the verdict alone.

A lesson says what each outcome would mean; which outcome it is, is decided in one place,
`labkit.compare`. So the prose can't contradict the figures beside it, and nobody who writes a
sentence chooses a threshold. The sentences are templates that gettext can extract: a translation
replaces them, not code.

    LAYOUT = Sentences(
        better=_("On this machine you would choose **{candidate}**."),
        worse=_("On this machine you would stay with **{baseline}**."),
        same=_("Take either: they differ by less than {margin}."),
    )
    read(race.verdict("channels_last"), LAYOUT, guess)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from gettext import gettext as _

from labkit.compare import Verdict
from labkit.compare.verdict import CALLS, Call
from labkit.lessons.lesson import Prediction
from labkit.lessons.prose import Prose, escaped

UNSURE = _("This run can't tell: its interval is too wide. Measure longer before you decide.")
FEW = _("That is too few to be sure of anything: let it run longer, or take a longer profile.")


@dataclass(frozen=True)
class Sentences:
    """What each call of a verdict means in this lesson.

    A template may hold figures of the verdict ({value}, {low}, {high}, {n}, {measured} for all of
    them in words, {margin}, {candidate}, {baseline}) and those that `read` is given.

    Attributes:
        better, worse: the candidate is, beyond doubt.
        same: there is no difference that matters.
        unsure: the interval is too wide to say.
        few: there is no interval.
    """

    better: str
    worse: str
    same: str
    unsure: str = UNSURE
    few: str = FEW

    def of(self, call: Call) -> str:
        """Return the template for a call."""
        texts = (self.better, self.worse, self.same, self.unsure, self.few)
        return dict(zip(CALLS, texts, strict=True))[call]


def sentence(verdict: Verdict, sentences: Sentences, **figures: object) -> str:
    """Return what a verdict means, without the verdict itself.

    Args:
        verdict: of one figure.
        sentences: what each call means.
        figures: what the templates hold besides the verdict's own.
    """
    return sentences.of(verdict.call).format(**_figures(verdict) | figures)


def _figures(verdict: Verdict) -> dict[str, object]:
    """Return what every template may hold."""
    e = verdict.estimate
    return {
        "value": e.value,
        "low": e.low,
        "high": e.high,
        "n": e.n,
        "measured": verdict.figures,
        "margin": verdict.quantity.margin_words,
        "candidate": verdict.candidate,
        "baseline": verdict.baseline,
    }


def _told(template: str, figures: Mapping[str, object]) -> str:
    """Return a template, which is Markdown, with its figures; names among them are text."""
    names = {name for name, value in figures.items() if type(value) is str}
    return template.format(**{n: escaped(v) if n in names else v for n, v in figures.items()})


def read(
    verdict: Verdict, sentences: Sentences, guess: Prediction | None = None, **figures: object
) -> Prose:
    """Return a verdict, what it means, and how a prediction fared.

    Args:
        verdict: of one figure.
        sentences: what each call means.
        guess: what the reader committed to.
        figures: what the templates hold besides the verdict's own.
    """
    told = _told(sentences.of(verdict.call), _figures(verdict) | figures)
    parts = [f"**{escaped(verdict)}**", told]
    if guess is not None:
        parts.append(guess.against(verdict))
    return Prose("\n\n".join(parts))


def _by_call(verdicts: Mapping[str, Verdict]) -> dict[Call, list[str]]:
    """Return {call: names of the verdicts that made it}, with all five calls in their order."""
    found: dict[Call, list[str]] = {call: [] for call in CALLS}
    for name, verdict in verdicts.items():
        found[verdict.call].append(name)
    return found


def read_all(verdicts: Mapping[str, Verdict], sentences: Sentences, **figures: object) -> Prose:
    """Return the verdicts in a list, each after its name, and below what the calls mean.

    Args:
        verdicts: {name: verdict}.
        sentences: what each call means, for all who made it together; {names} says who they are.
            Figures of a single verdict have no place in them.
        figures: what the templates hold besides.
    """
    lines = [f"- **{escaped(name)}**: {escaped(verdict)}" for name, verdict in verdicts.items()]
    for call, found in _by_call(verdicts).items():
        if found:
            names = ", ".join(found)
            told = _told(sentences.of(call), {"names": names} | figures)
            lines.append(f"\n**{escaped(names)}**: {told}")
    return Prose("\n".join(lines))
