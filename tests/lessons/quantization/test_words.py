"""What the quantization lesson says: a sentence for each call, with the figures that it needs."""

import pytest
from support.verdicts import each_call

from labkit.compare import LATENCY, Quantity
from labkit.compression.quantize import Int8Limits
from labkit.lessons.quantization import words
from labkit.lessons.reading import read, read_all
from labkit.training.task import ACCURACY

POINTS = Quantity.of(ACCURACY)
ALONE = {
    "SPEED": (LATENCY, {"allowed": 4.2}),
    "KEPT": (LATENCY, {}),
    "KEPT_RIGHT": (POINTS, {}),
    "AWARE": (POINTS, {}),
    "CONTROL": (POINTS, {}),
    "BOTH": (LATENCY, {"alone": 2.07}),
}
TOGETHER = {"STATIC": POINTS, "LANGUAGE": LATENCY, "WEIGHTS": LATENCY, "BITS": POINTS}


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


def test_figures_stand_in_the_sentences() -> None:
    for kernels, bits in (("avx-vnni", 8), ("avx2", 7)):
        limits = Int8Limits(0.006, 0.002, kernels, 4.0, moving=True)
        roof = words.ROOF.format(limits=limits, kernels=limits.kernels, fp32=6.0, int8=2.0)
        assert f"**{kernels}**" in roof and f"**{bits} bits**" in roof
        assert "**3.0 times less**" in roof
    told = words.FILE.format(predicted=1000, tensors=1000, header=100, smaller=3.64)
    assert "stored **1,000**" in told and "**3.64 times smaller**" in told
    assert "12.0 dB" in words.GRIDS.format(gain=12.04, worth=2.0)
