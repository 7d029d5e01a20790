"""Notebook 13: its checks, and its sentences for every outcome."""

from __future__ import annotations

import pytest
from support.common import check_is_sound
from support.verdicts import each_call

from labkit.compare import STEP_TIME
from labkit.lessons import read, read_all
from labkit.lessons.model_parallel import checks, pictures, words
from labkit.lessons.model_parallel.measure import IDLE
from labkit.widgets.style import to_png

LISTED = (words.LAYERS, words.RACE, words.AGAINST_DATA)


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (
            checks.gigabytes_of_seven_billion,
            112,
            {28: "", 56: "", 84: "", 112e9: "bytes", 104.31: "GiB", 112.5: "", -112: ""},
        ),
        (
            checks.fewest_microbatches,
            27,
            {26: "More are needed", 28: "Fewer would do", 4: "42.9%", 0: "", 10**12: ""},
        ),
        (
            checks.lowest_stage,
            2,
            {0: "needs 16.0 GB", 1: "needs 9.0 GB", 3: "", 4: "1, 2 and 3", -1: "1, 2 and 3"},
        ),
    ],
)
def test_checks(check, right, wrong):
    check_is_sound(check, right, wrong)


@pytest.mark.parametrize(
    ("told", "quantity"),
    [(words.IDLE, IDLE), (words.PIPELINE_TIME, STEP_TIME), *((t, STEP_TIME) for t in LISTED)],
)
def test_each_call_has_a_sentence_of_its_own(told, quantity):
    said = set()
    for verdict in each_call(quantity).values():
        if told in LISTED:
            said.add(read_all({"one": verdict}, told))
        else:
            said.add(read(verdict, told, few=1 / 3, many=1 / 9))
    assert len(said) == 5 and not any("{" in text or "inf" in text for text in said)
    assert told is not words.IDLE or any("11% instead of 33%" in text for text in said)


# ---- the picker


@pytest.mark.parametrize("model", pictures.SIZES)
def test_every_model_of_the_picker_can_be_drawn_and_told(model):
    for devices, memory, precision in ((1, 8, "fp32"), (8, 80, "bf16"), (1024, 16, "bf16")):
        fig, text = pictures.picker(model, devices, memory, 8, precision)
        assert len(to_png(fig)) > 1000
        assert text.startswith("Nothing fits.") == ("does not fit" in text)
        marked = [t for t in fig.axes[0].get_yticklabels() if t.get_text().startswith("➜")]
        assert len(marked) == (0 if text.startswith("Nothing fits.") else 1)
