"""Races of all kinds of learning, live in a real JupyterLab, each with a verdict in its own units.

Nothing in the loop, the race or the live view knows any of them: they are tasks, generators between
steps and recipes that differ in one field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser
from support.lab_server import LabServer, notebook_of
from support.pages import LiveElement, Notebook, opened

pytestmark = pytest.mark.timeout(280)

SETUP = """
from dataclasses import replace
from functools import partial
from labkit import AdamW, Race, Recipe, data, models
from labkit.training import average_weights, classify, distill, fill_masks, next_token, unfreeze
from labkit.widgets import live

speeches = data.speeches(200_000, context=16)
text = replace(
    speeches,
    train_tokens=speeches.train_tokens[:8_000],
    test_tokens=speeches.test_tokens[:1_600],
)
masked = data.MaskedText(text)

def language(data, depth, causal):
    return partial(models.transformer, data.vocabulary, 32, depth, 2, context=16, causal=causal)

reader = Recipe(
    language(text, 1, True), text, next_token(), AdamW(lr=3e-3), steps=40, batch_size=16
)
filler = reader.but(model=language(masked, 1, False), data=masked, task=fill_masks())
plain = Recipe(
    partial(models.convnet, width=8), data.fashion(train=960, test=200), steps=40, batch_size=32
)
teacher = plain.but(model=partial(models.convnet, width=8)).training()
for step in teacher:
    pass
taught = distill(classify(), teacher.model.eval())
"""
RACES = {
    "next-token": "{'one block': reader, 'two': reader.but(model=language(text, 2, True))}",
    "masked-words": "{'one block': filler, 'two': filler.but(model=language(masked, 2, False))}",
    "distilled": "{'plain': plain, 'distilled': plain.but(task=taught)}",
    "averaged": "{'last': plain, 'averaged': plain.but(between=(average_weights(0.9),))}",
    "unfrozen": "{'all': plain, 'later': plain.but(between=(unfreeze((('stem', 0.5),)),))}",
}
VERDICT = """
candidate = list(race.arms)[1]
print(race.verdict(candidate, on=race.metric.name))
print(race.verdict(candidate))
before, after = (records[-1].scores for records in race.records.values())
print("by hand:", race.metric.scale * float((after - before).mean()), "n =", len(before))
"""


@pytest.fixture(scope="module")
def notebook(
    browser: Browser, server: LabServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Notebook]:
    cells = {"setup": SETUP.strip(), "wait": "await run\nprint(run)", "verdict": VERDICT.strip()}
    for name, arms in RACES.items():
        cells[name] = f"race = Race({arms}, seeds=1, evaluations=2)\nrun = live(race)"
    source = notebook_of(cells, tmp_path_factory.mktemp("made") / "races.ipynb")
    with opened(browser, server, source) as shared:
        shared.page.set_default_timeout(120_000)
        shared.run_cell("setup")
        yield shared


@pytest.mark.parametrize(
    ("name", "metric", "unit", "difference"),
    [
        ("next-token", "loss", "nats", "nats"),
        ("masked-words", "loss", "nats", "nats"),
        ("distilled", "accuracy", "%", "points"),
        ("averaged", "accuracy", "%", "points"),
        ("unfrozen", "accuracy", "%", "points"),
    ],
)
def test_a_race_is_shown_and_judged_in_its_own_units(
    notebook: Notebook, name: str, metric: str, unit: str, difference: str
) -> None:
    notebook.run_cell(name)
    view = LiveElement(notebook.page)
    view.wait_for_rows(more_than=4)
    labels = [each.get_attribute("aria-label") for each in view.root.locator("canvas").all()]
    assert str(labels[0]).startswith("Training loss. mean of a batch, smoothed")
    assert str(labels[1]).startswith(f"Test {metric}. {metric} ({unit}) against steps.")

    notebook.run_cell("wait")
    assert notebook.output_text("wait").strip() == "live run, finished"
    (output,) = notebook.outputs(name)
    table = output["data"]["text/plain"]
    assert f"{metric}, {unit}" in table and f"difference, {difference}" in table

    notebook.run_cell("verdict")
    quality, time, by_hand = notebook.output_text("verdict").strip().splitlines()
    print(quality, time, sep="\n")
    assert re.search(rf" over .+, {metric}: ", quality)
    said, decimals = re.search(rf"([+-]\d+\.(\d+)) {difference}", quality).groups()  # type: ignore[union-attr]
    exact, n = re.fullmatch(r"by hand: (\S+) n = (\d+)", by_hand).groups()  # type: ignore[union-attr]
    assert float(said) == pytest.approx(float(exact), abs=0.51 * 10 ** -len(decimals))
    assert f"n={n}" in quality  # compared example by example
    assert re.search(r", step time: .*\dx", time) and "95 %" in time
