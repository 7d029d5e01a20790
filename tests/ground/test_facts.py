"""Facts are true, say nothing private, and what is borrowed is given back."""

import getpass
import json
import os
import random
import socket
from pathlib import Path

import numpy
import pytest
import torch

from labkit import facts, seeds


def test_facts_are_those_of_the_machine() -> None:
    found = facts.machine_facts()
    assert found.torch == torch.__version__
    assert found.threads == torch.get_num_threads()
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert (
        0
        < found.memory_gib * 2**30
        <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") + 2**27
    )
    assert found.device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert repr(found) == str(found)
    assert json.loads(json.dumps(found.as_dict())) == found.as_dict()


def test_facts_tell_no_host_no_user_and_no_path() -> None:
    words = str(facts.machine_facts()) + json.dumps(facts.machine_facts().as_dict())
    assert socket.gethostname() not in words
    assert str(Path.home()) not in words
    assert f" {getpass.getuser()} " not in words


def test_a_container_s_limit_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text(str(2**30))
    monkeypatch.setattr(facts, "CGROUP_LIMIT", limit)
    facts._memory_bytes.cache_clear()
    try:
        assert facts.machine_facts().memory_gib == 1.0
        limit.write_text("max\n")
        facts._memory_bytes.cache_clear()
        assert facts.machine_facts().memory_gib > 1.0
    finally:
        facts._memory_bytes.cache_clear()


def test_threads_are_pinned_and_given_back_also_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="inside"), facts.threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise RuntimeError("inside")
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", True])
def test_threads_refuses(count: object) -> None:
    with pytest.raises(ValueError, match="count must be a whole number of at least 1, got"):
        facts.threads(count).__enter__()  # type: ignore[arg-type]


def draw() -> tuple[float, float, float]:
    return random.random(), float(numpy.random.rand()), float(torch.rand(1))


def test_seed_everything_and_the_state_of_all_generators() -> None:
    seeds.seed_everything(7)
    first = draw()
    seeds.seed_everything(7)
    assert draw() == first
    state = seeds.rng_state()
    second = draw()
    assert second != first
    seeds.set_rng_state(state)
    assert draw() == second


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5, None, True])
def test_seed_everything_refuses(seed: object) -> None:
    with pytest.raises(ValueError, match="seed must be a whole number"):
        seeds.seed_everything(seed)  # type: ignore[arg-type]
