"""Speeches as tokens: exact round trip, targets moved by one, whole speeches held out."""

from __future__ import annotations

import json
import lzma
import pickle
import shutil
import subprocess
import sys

import pytest
import torch

from labkit import data
from labkit.data.files import data_root
from labkit.data.text import END, FILE, TOKENIZER, TextBatches


@pytest.fixture(scope="module")
def text() -> data.TextData:
    return data.speeches(300_000, context=16)


@pytest.fixture(scope="module")
def originals() -> list[str]:
    lines = lzma.decompress((data_root() / FILE).read_bytes()).decode().split("\n")
    return [json.loads(line)["text"] for line in lines if line]


def speeches_in(text: data.TextData, tokens: torch.Tensor) -> list[str]:
    ends = (tokens == END).nonzero().flatten().tolist()
    starts = [0, *(end + 1 for end in ends)]
    return [text.decode(tokens[a:b]) for a, b in zip(starts, ends, strict=False)]


def test_any_text_comes_back_exactly(text, originals) -> None:
    for original in [*originals[::10], "naïve – 中文 \n\t😀\x00"]:
        assert text.decode(text.encode(original)) == original


def test_tokens_are_shorter_than_characters(text) -> None:
    tokens = len(text.train_tokens) + len(text.test_tokens)
    assert tokens < text.characters / 3.5
    assert int(text.train_tokens.max()) < text.vocabulary == 4096


def test_whole_speeches_are_held_out_and_none_is_lost(text, originals) -> None:
    train = speeches_in(text, text.train_tokens)
    test = speeches_in(text, text.test_tokens)
    assert not set(train) & set(test)
    assert sorted(train + test) == sorted(originals[-len(train + test) :])
    assert sum(map(len, train + test)) == text.characters >= 300_000


def test_targets_are_the_inputs_moved_by_one(text) -> None:
    for inputs, targets in text.batches(4):
        assert inputs.shape == targets.shape == (4, 16)
        assert inputs.dtype == targets.dtype == torch.int64
        assert torch.equal(inputs[:, 1:], targets[:, :-1])


def test_an_epoch_has_each_window_once() -> None:
    batches = TextBatches(torch.arange(101), 5, 10)
    seen = torch.cat([inputs for inputs, _ in batches])
    assert len(batches) == 2
    assert sorted(seen.flatten().tolist()) == list(range(100))
    first, second = (torch.cat([x for x, _ in batches]) for _ in range(2))
    assert not torch.equal(first, second)


def test_the_order_depends_on_seed_and_epoch_alone(text) -> None:
    once, again = text.batches(4, seed=3), text.batches(4, seed=3)
    list(once)
    again.set_epoch(1)
    for (a, _), (b, _) in zip(once, again, strict=True):
        assert torch.equal(a, b)
    other = next(iter(text.batches(4, seed=4)))[0]
    assert not torch.equal(next(iter(text.batches(4, seed=3)))[0], other)


def test_the_test_text_keeps_its_order(text) -> None:
    windows = (len(text.test_tokens) - 1) // 16
    batches = list(text.test_batches(7))
    inputs, targets = (torch.cat(part).flatten() for part in zip(*batches, strict=True))
    assert torch.equal(inputs, text.test_tokens[: windows * 16])  # nothing is dropped
    assert torch.equal(targets, text.test_tokens[1 : windows * 16 + 1])
    assert len(batches) == len(text.test_batches(7)) == -(-windows // 7)


def test_all_of_it_can_be_had_and_not_more(originals) -> None:
    total = sum(map(len, originals))
    with pytest.raises(ValueError, match=f"characters must be at most {total:,}"):
        data.speeches(total + 1)


@pytest.mark.parametrize("arguments", [{"characters": 0}, {"context": 0}])
def test_refuses_sizes_that_are_none(arguments) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        data.speeches(**arguments)


def test_refuses_a_batch_larger_than_the_text() -> None:
    with pytest.raises(ValueError, match=r"batch_size 10 is larger than the data \(9\)"):
        TextBatches(torch.arange(100), 10, 10)
    with pytest.raises(ValueError, match=r"tokens must be more than context \(10\), got 10"):
        TextBatches(torch.arange(10), 1, 10)


def test_it_prints_its_size_and_not_its_tokens(text) -> None:
    train, test = len(text.train_tokens), len(text.test_tokens)
    assert repr(text) == f"speeches({train:,} + {test:,} tokens, context 16)"


def test_it_can_be_sent_to_another_process(text) -> None:
    sent = pickle.loads(pickle.dumps(text))
    assert torch.equal(sent.train_tokens, text.train_tokens)
    assert sent.decode(sent.encode("We the People")) == "We the People"


def test_loading_starts_no_thread() -> None:
    """A process that has threads cannot safely fork, and tokenizers says so when it does."""
    code = (
        "import psutil, torch; from labkit import data; torch.set_num_threads(1)\n"
        "threads = psutil.Process().num_threads\n"
        "before = threads(); text = data.speeches(300_000); text.encode('We the People' * 9999)\n"
        "print(threads() - before)"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert (result.stdout.strip(), result.stderr) == ("0", "")


@pytest.mark.parametrize("name", [FILE, TOKENIZER])
@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_bad_file_is_named_with_the_mend(name, damage, tmp_path, monkeypatch) -> None:
    (tmp_path / "speeches").mkdir()
    for file in (FILE, TOKENIZER, "SHA256SUMS"):
        shutil.copy(data_root() / file, tmp_path / file)
    if damage == "missing":
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-3])
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    with pytest.raises((FileNotFoundError, ValueError), match=rf"{name} is {damage}.*make_spee"):
        data.speeches(100_000)
