"""Ceiling: work by arithmetic, time by a clock of our own, and what cannot run is left out."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch

from labkit import facts
from labkit.measure import Ceiling, Estimate, Timing, ceiling, flops, traffic

# The package's attribute of this name is the function.
MODULE = sys.modules["labkit.measure.ceiling"]
CPU = torch.device("cpu")


def estimate(value: float) -> Estimate:
    return Estimate(value, value - 1, value + 1, 9)


@pytest.fixture
def made() -> Ceiling:
    return Ceiling(
        matmul={"fp32": estimate(200.0), "bf16": estimate(1400.0)},
        convolution={"fp32": estimate(100.0)},
        bandwidth=estimate(10.0),
        threads=2,
        device="cpu",
        left_out={"bf16 convolution": "no such kernel"},
        cache_mib=480.0,
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes so small that a test is quick."""
    for kind, sizes in (("matmul", (16, 32)), ("convolution", (1,))):
        monkeypatch.setitem(MODULE._KINDS, kind, (*MODULE._KINDS[kind][:2], sizes))
    monkeypatch.setattr(MODULE, "_COPY_MIB", 1)


@pytest.mark.parametrize(("kind", "size"), [("matmul", 128), ("convolution", 3)])
def test_the_work_of_a_probe_is_what_the_counter_counts(kind: str, size: int):
    build, work_of, _ = MODULE._KINDS[kind]
    assert work_of(size) == flops(build(size, torch.float32, CPU))


def test_the_bytes_of_the_copy_are_what_the_counter_counts():
    probe = MODULE._copy(CPU)
    assert probe.work == traffic(probe.call) == 2 * MODULE._COPY_MIB * 2**20


def test_rates_are_work_over_time():
    """2 s, 4 s and so on for 8e9 operations: 4, 2, ... GFLOP/s; the median of rates."""
    rate = MODULE._rate(Timing("f", (2.0, 4.0, 8.0, 4.0, 4.0, 1.0)), 8 * 10**9)
    assert rate.value == 2.0
    assert rate.n == 6
    assert rate.low <= 2.0 <= rate.high


def test_the_size_grows_up_to_the_time_allowed(monkeypatch: pytest.MonkeyPatch):
    """On a machine of 1 GFLOP/s: 128 takes 4.2 ms, 256 34 ms, 512 0.27 s."""
    built: set[int] = set()

    def build(size: int, *_: object) -> int:
        built.add(size)
        return size

    def pretend(functions: dict[str, int], **_: object) -> dict[str, Timing]:
        return {name: Timing(name, (2 * size**3 / 1e9,) * 2) for name, size in functions.items()}

    monkeypatch.setitem(MODULE._KINDS, "matmul", (build, *MODULE._KINDS["matmul"][1:]))
    monkeypatch.setattr(MODULE, "interleave", pretend)
    for slot, size in ((0.001, 128), (0.01, 128), (0.04, 256), (0.3, 512)):
        assert MODULE._largest("matmul", torch.float32, slot, 1, CPU).work == 2 * size**3
    assert built == {128, 256, 512}  # a size that is too slow is not even built


def test_rounds_fill_the_time_within_limits(monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[int, list[str]]] = []

    def pretend(functions: dict, *, rounds: int, **_: object) -> dict[str, Timing]:
        asked.append((rounds, list(functions)))
        return {name: Timing(name, (0.05,) * rounds) for name in functions}

    monkeypatch.setattr(MODULE, "interleave", pretend)
    probes = {name: MODULE._Probe(lambda: None, 1) for name in ("a", "b")}  # 0.1 s a round
    for seconds, rounds in ((1.25, 12), (0.1, 6), (60.0, 50)):
        MODULE._measure(probes, seconds, 1, CPU)
        assert asked[-1] == (rounds, ["a", "b"])  # all in one interleaved run


def test_measured_on_this_machine(small: None):
    before, random = torch.get_num_threads(), torch.get_rng_state()
    found = ceiling(dtypes=("fp32", "bf16"), seconds=0.05, threads=2)
    assert list(found.matmul) == list(found.convolution) == ["fp32", "bf16"]
    for rate in (*found.matmul.values(), *found.convolution.values(), found.bandwidth):
        assert 0 < rate.low <= rate.value <= rate.high < float("inf")
        assert rate.n >= 6
    assert (found.threads, found.device) == (2, str(facts.default_device()))
    assert torch.get_num_threads() == before
    assert torch.equal(torch.get_rng_state(), random)


def replace_matmul(monkeypatch: pytest.MonkeyPatch, build: Callable[..., object]) -> None:
    monkeypatch.setitem(MODULE._KINDS, "matmul", (build, *MODULE._KINDS["matmul"][1:]))


def test_all_probes_run_on_the_threads_asked_for(small: None, monkeypatch: pytest.MonkeyPatch):
    seen: set[int] = set()
    replace_matmul(monkeypatch, lambda *_: lambda: seen.add(torch.get_num_threads()))
    asked = torch.get_num_threads() + 1
    ceiling(dtypes=("fp32",), seconds=0.05, threads=asked, device="cpu")
    assert seen == {asked}


def test_what_the_machine_cannot_do_is_left_out(small: None, monkeypatch: pytest.MonkeyPatch):
    original = MODULE._matmul

    def without_fp16(size: int, dtype: torch.dtype, device: torch.device) -> object:
        if dtype == torch.float16:
            raise RuntimeError('"mm" not implemented for "Half"\nmore')
        return original(size, dtype, device)

    replace_matmul(monkeypatch, without_fp16)
    found = ceiling(dtypes=("fp16", "fp32"), seconds=0.05, device="cpu")
    assert list(found.matmul) == ["fp32"]
    assert list(found.convolution) == ["fp16", "fp32"]
    assert found.left_out == {"fp16 matmul": '"mm" not implemented for "Half"'}
    with pytest.raises(ValueError, match="dtype 'fp16' has no matmul.*\"Half\".*there is fp32"):
        found.peak("fp16", "matmul")


def test_peak_and_ridge(made: Ceiling):
    assert made.peak("bf16", "matmul") == 1.4e12
    assert made.peak() == 1e11
    assert made.ridge("fp32", "matmul") == 20.0  # 200 GFLOP/s over 10 GB/s
    with pytest.raises(ValueError, match=r"'bf16' has no convolution ceiling \(no such kernel\)"):
        made.peak("bf16")
    with pytest.raises(ValueError, match=r"'fp8'.*\(not asked for\); there is fp32, bf16"):
        made.ridge("fp8", "matmul")
    with pytest.raises(ValueError, match="kind must be one of matmul, convolution, got 'fft'"):
        made.peak("fp32", "fft")


def test_the_table_says_all(made: Ceiling):
    assert str(made).splitlines() == [
        "ceiling of cpu, 2 threads (median, interval, n)",
        "  fp32 matmul         200.0 (199.0-201.0, 9) GFLOP/s",
        "  bf16 matmul        1400.0 (1399.0-1401.0, 9) GFLOP/s",
        "  fp32 convolution    100.0 (99.0-101.0, 9) GFLOP/s",
        "  copy                 10.0 (9.0-11.0, 9) GB/s",
        "  the copy may fit in the 480 MiB cache: memory may be slower",
        "  bf16 convolution: left out, no such kernel",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtypes": ()}, r"dtypes.*got \(\)"),
        ({"dtypes": "fp32"}, "dtypes.*got 'fp32'"),
        ({"dtypes": ("fp32", "fp8")}, "dtypes.*fp8"),
        ({"dtypes": ("fp32", "fp32")}, "dtypes must not repeat"),
        ({"seconds": 0}, "seconds.*got 0"),
        ({"seconds": float("nan")}, "seconds.*got nan"),
        ({"threads": 0}, "got 0"),
    ],
)
def test_bad_input_is_named(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ceiling(**arguments)
