"""What the pruning lesson says: a sentence for each call, with the figures that it needs."""

import pytest
from support.verdicts import each_call

from labkit.compare import FORWARD_TIME, Quantity
from labkit.lessons.pruning import measure, words
from labkit.lessons.reading import read, read_all
from labkit.training.task import ACCURACY

POINTS = Quantity.of(ACCURACY)
ALONE = {
    "MASKS": (FORWARD_TIME, {}),
    "TWO_OF_FOUR": (POINTS, {}),
    "HALF": (FORWARD_TIME, {"fewer": 2.31, "share": 0.93}),
    "PENALTY": (POINTS, {"removed": 7}),
    "STEPS": (POINTS, {}),
    "WORTH": (POINTS, {}),
    "TICKET": (POINTS, {}),
}
TOGETHER = {"SPARSE": POINTS, "WIDTHS": measure.A_CHANNEL}


@pytest.mark.parametrize("name", ALONE)
def test_each_call_has_a_sentence_of_its_own(name: str) -> None:
    quantity, figures = ALONE[name]
    said = {
        call: str(read(verdict, getattr(words, name), **figures))
        for call, verdict in each_call(quantity).items()
    }
    meanings = {text.split("\n\n", 1)[1] for text in said.values()}
    assert len(meanings) == 5 and not any("{" in text for text in said.values())


@pytest.mark.parametrize("name", TOGETHER)
def test_many_are_told_by_what_they_share(name: str) -> None:
    said = str(read_all(each_call(TOGETHER[name]), getattr(words, name)))
    assert said.count("\n**") == 5 and "{" not in said


def test_figures_are_said_where_they_matter() -> None:
    better = each_call(FORWARD_TIME)["better"]
    said = read(better, words.HALF, fewer=2.31, share=0.93)
    assert "2.31 times fewer operations: the time gives 93%" in said
    for verdict in each_call(POINTS).values():
        if not verdict.too_few:
            said = read(verdict, words.PENALTY, removed=0)
            assert "Channels that go without any loss: 0." in said
