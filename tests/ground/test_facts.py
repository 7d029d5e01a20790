"""Facts are true, say nothing private, and what is borrowed is given back."""

import getpass
import json
import os
import random
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import psutil
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


ABOVE = "1:name=systemd:/\n"
GROUPS = {  # what the kernel says, what stands in the files, cores and memory that follow
    "version 2, own group at the top": (
        "0::/\n",
        {"cpu.max": "50000 100000", "memory.max": "1073741824"},
        (1, 1.0),
    ),
    "version 2, no limit": ("0::/\n", {"cpu.max": "max 100000", "memory.max": "max"}, (8, 64.0)),
    "version 2, the group around it is limited": (
        "0::/kubepods/pod/one\n",
        {"kubepods/pod/cpu.max": "350000 100000", "kubepods/pod/one/memory.max": "2147483648"},
        (3, 2.0),
    ),
    "version 1, a tree for two controllers": (
        ABOVE + "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n",
        {
            "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "50000",
            "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000",
            "memory/docker/abc/memory.limit_in_bytes": "536870912",
        },
        (1, 0.5),
    ),
    "version 1, own group at the top": (
        ABOVE + "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n",
        {
            "cpu/cpu.cfs_quota_us": "200000",
            "cpu/cpu.cfs_period_us": "100000",
            "memory/memory.limit_in_bytes": "9223372036854771712",
        },
        (2, 64.0),
    ),
    "version 1, no limit": (
        "4:cpu:/\n",
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
        (8, 64.0),
    ),
    "no groups at all": (None, {}, (8, 64.0)),
}


@pytest.mark.parametrize(("told", "files", "wanted"), GROUPS.values(), ids=GROUPS)
def test_limits_of_containers_count(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    told: str | None,
    files: dict[str, str],
    wanted: tuple[int, float],
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=64 * 2**30))
    monkeypatch.setattr(facts, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(facts, "MEMBERSHIP", tmp_path / "membership")
    if told is not None:
        (tmp_path / "membership").write_text(told)
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    found = facts.machine_facts()
    assert (found.cores, found.memory_gib) == wanted


def test_int8_kernels_are_asked_and_not_the_processor_s_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = []

    def saturating(x: Any, *rest: Any) -> torch.Tensor:
        answers.append(min(32_767, 2 * 255 * 127) * x.shape[1] / 2)
        return torch.full((len(x), 16), answers[-1])

    facts.int8_saturates.cache_clear()
    here = facts.int8_saturates()
    assert ("VNNI" in facts.instruction_set()) <= (not here)
    monkeypatch.setattr(
        facts.torch.ops,
        "onednn",
        SimpleNamespace(qlinear_prepack=lambda *_: None, qlinear_pointwise=saturating),
    )
    facts.int8_saturates.cache_clear()
    try:
        assert facts.int8_saturates() and facts.int8_saturates() and len(answers) == 1
        assert "VNNI" not in facts.instruction_set()
        monkeypatch.setattr(facts.torch.ops, "onednn", SimpleNamespace())  # not built for x86
        facts.int8_saturates.cache_clear()
        assert not facts.int8_saturates()
    finally:
        facts.int8_saturates.cache_clear()


def test_threads_are_pinned_and_given_back_also_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="inside"), facts.threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise RuntimeError("inside")
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("count", [0, -1, True])
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


@pytest.mark.parametrize("seed", [-1, 2**32, True])
def test_seed_everything_refuses(seed: object) -> None:
    with pytest.raises(ValueError, match="seed must be a whole number"):
        seeds.seed_everything(seed)  # type: ignore[arg-type]
