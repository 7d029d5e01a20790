"""Notebook 01's killed training: it dies, resumes to the bit, and leaves no process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from support.common import tiny_data
from support.ranks import command

from labkit.lessons.training_loop import crash
from labkit.training import checkpoint


def images():
    return tiny_data(n=80, size=12)


def test_the_training_is_killed_and_its_checkpoint_resumes_to_the_bit(tmp_path: Path):
    path = tmp_path / "run.ckpt"
    killed = crash.train_and_kill(path, images())
    assert crash.KILL_AFTER <= killed.steps < crash.STEPS
    assert killed.saved % crash.SAVE_EVERY == 0 and 0 < killed.saved < crash.STEPS
    assert "killed by signal 9" in repr(killed)

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = [step.loss for step in crash.recipe(images()).training()]
        resumed = crash.recipe(images()).training()
        checkpoint.load(path, resumed)
        assert [step.loss for step in resumed] == whole[killed.saved :]
        forgetful = crash.recipe(images()).training()
        forgetful.model.load_state_dict(checkpoint.read_state(path)["model"])
        assert [s.loss for s in forgetful][: len(whole) - killed.saved] != whole[killed.saved :]
    finally:
        torch.set_num_threads(before)


def test_a_training_that_fails_is_named(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(crash, "vars", lambda _: {"name": "no images"}, raising=False)
    with pytest.raises(RuntimeError, match=r"code 1 after step 0.*missing 7 required"):
        crash.train_and_kill(tmp_path / "run.ckpt", images())
    assert no_children()


def test_the_timeout_ends_the_training(tmp_path: Path):
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="was not killed within 0.1 s"):
        crash.train_and_kill(tmp_path / "run.ckpt", images(), timeout=0.1)
    assert time.monotonic() - began < 60 and no_children()


def test_an_interrupt_leaves_no_process(tmp_path: Path, monkeypatch):
    def interrupt(*_, **__):
        assert not no_children()
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        crash.train_and_kill(tmp_path / "run.ckpt", images())
    assert no_children()


def test_a_training_that_nobody_listens_to_ends(tmp_path: Path):
    """The kernel is killed: the next line that the training prints has nobody to read it."""
    checkpoint.write_state(tmp_path / "run.images", vars(images()))
    command = [sys.executable, "-m", "labkit.lessons.training_loop.crash"]
    paths = [str(tmp_path / "run.ckpt"), str(tmp_path / "run.images")]
    child = subprocess.Popen(
        [*command, *paths], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "1\n"
    child.stdout.close()
    assert child.wait(timeout=60) != 0


def no_children() -> bool:
    children = psutil.Process().children()
    return not any("lessons.training_loop.crash" in command(child) for child in children)
