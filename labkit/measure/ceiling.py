"""Measure the fastest this machine computes and moves data: the roof that every step lives under.

Data sheets promise peaks that no program reaches, and say nothing about a shared or throttled
machine. So the roof is measured with the kernels that training uses: a product of large matrices,
a convolution like those of a small ResNet (64 channels, 3x3, channels_last), and a copy of a
buffer. All of them take turns (`interleave`), so that a busy neighbor lowers the whole roof and
not one corner of it. The roof moves with the neighbors: measure it beside what it is compared to.

Whether bf16 is faster than fp32 or slower depends on the processor alone: matrix units (AMX, a
GPU's tensor cores) make it several times faster, and without them it is often slower. This module
only measures.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from labkit import facts
from labkit.checks import device_of
from labkit.measure.statistics import Estimate, median_interval
from labkit.measure.timing import Timing, interleave

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
KINDS = ("matmul", "convolution")

_CHANNELS, _IMAGE = 64, 28
_COPY_MIB = 32  # two such buffers exceed the caches of most laptops, and fit on small machines
_MIN_ROUNDS, _MAX_ROUNDS = 6, 50  # six are the fewest that give an interval


@dataclass(frozen=True)
class Ceiling:
    """What a machine reaches at most: GFLOP/s by dtype for each kind of work, and GB/s.

    Bandwidth counts bytes read plus bytes written. `left_out` gives, for each probe that this
    machine cannot run, the reason. `cache_mib` is the processor's largest cache, if it is known:
    where it exceeds the copied buffers, the bandwidth may be the cache's.
    """

    matmul: Mapping[str, Estimate]
    convolution: Mapping[str, Estimate]
    bandwidth: Estimate
    threads: int
    device: str
    left_out: Mapping[str, str] = field(default_factory=dict)
    cache_mib: float | None = None

    @property
    def copy_in_cache(self) -> bool:
        """Whether the copied buffers may have stayed in the processor's cache."""
        return self.cache_mib is not None and self.cache_mib >= 2 * _COPY_MIB

    def peak(self, dtype: str = "fp32", kind: str = "convolution") -> float:
        """Return the median peak in FLOP/s.

        Raises:
            ValueError: unknown `kind`, or a dtype that was not measured (with the reason).
        """
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
        measured: Mapping[str, Estimate] = getattr(self, kind)
        if dtype not in measured:
            reason = self.left_out.get(f"{dtype} {kind}", "not asked for")
            known = ", ".join(measured) or "nothing"
            raise ValueError(f"dtype {dtype!r} has no {kind} ceiling ({reason}); there is {known}")
        return measured[dtype].value * 1e9

    def ridge(self, dtype: str = "fp32", kind: str = "convolution") -> float:
        """Return the arithmetic intensity, in FLOP/byte, above which computing is the limit."""
        return self.peak(dtype, kind) / (self.bandwidth.value * 1e9)

    def __str__(self) -> str:
        """Return a table: a line for each probe, and one for each that was left out."""
        plural = "s" if self.threads > 1 else ""
        lines = [f"ceiling of {self.device}, {self.threads} thread{plural} (median, interval, n)"]
        for kind in KINDS:
            for dtype, rate in getattr(self, kind).items():
                lines.append(f"  {dtype} {kind:<12} {_show(rate)} GFLOP/s")
        lines.append(f"  copy{'':<13} {_show(self.bandwidth)} GB/s")
        if self.copy_in_cache:
            lines.append(
                f"  the copy may fit in the {self.cache_mib:.0f} MiB cache: memory may be slower"
            )
        lines += [f"  {probe}: left out, {reason}" for probe, reason in self.left_out.items()]
        return "\n".join(lines)


@dataclass(frozen=True)
class _Probe:
    """A call, and the FLOPs it computes or the bytes it moves."""

    call: Callable[[], object]
    work: int


def ceiling(
    *,
    dtypes: Sequence[str] = ("fp32", "bf16", "fp16"),
    seconds: float = 1.2,
    threads: int = 1,
    device: torch.device | str | None = None,
) -> Ceiling:
    """Measure the peak of matmul and convolution in each dtype, and the copy bandwidth.

    Args:
        dtypes: some of "fp32", "bf16", "fp16". One that the machine cannot run is left out.
        seconds: time to spend on measuring; finding fitting sizes first takes about as long.
        threads: torch's threads while measuring.
        device: what to measure; None is the default device of `labkit.facts`.

    Raises:
        ValueError: an unknown or no dtype, or `seconds` or `threads` out of range.
    """
    _check(dtypes, seconds)
    where = device_of(device) if device is not None else facts.default_device()
    probes: dict[str, _Probe] = {}
    left_out: dict[str, str] = {}
    slot = seconds / (20 * (2 * len(dtypes) + 1))  # so that each probe has about twenty rounds
    for kind, dtype in ((kind, dtype) for kind in KINDS for dtype in dtypes):
        try:
            probes[f"{dtype} {kind}"] = _largest(kind, DTYPES[dtype], slot, threads, where)
        except RuntimeError as error:  # NotImplementedError is one too
            left_out[f"{dtype} {kind}"] = str(error).partition("\n")[0]
    probes["copy"] = _copy(where)
    timings = _measure(probes, seconds, threads, where)
    rates = {name: _rate(timings[name], probe.work) for name, probe in probes.items()}
    return Ceiling(
        **{
            kind: {d: rates[f"{d} {kind}"] for d in dtypes if f"{d} {kind}" in rates}
            for kind in KINDS
        },
        bandwidth=rates["copy"],
        threads=threads,
        device=str(where),
        left_out=left_out,
        cache_mib=_cache_mib() if where.type == "cpu" else None,
    )


def _measure(
    probes: dict[str, _Probe], seconds: float, threads: int, device: torch.device
) -> dict[str, Timing]:
    """Run as many rounds of all probes as the time allows."""
    calls = {name: probe.call for name, probe in probes.items()}
    trial = interleave(calls, rounds=1, warmup=1, threads=threads, device=device)
    round_seconds = sum(timing.median for timing in trial.values())
    rounds = min(max(int(seconds / round_seconds), _MIN_ROUNDS), _MAX_ROUNDS)
    return interleave(calls, rounds=rounds, warmup=0, threads=threads, device=device)


def _rate(timing: Timing, work: int) -> Estimate:
    """Work per nanosecond: GFLOP/s or GB/s."""
    return median_interval([work / seconds / 1e9 for seconds in timing.seconds])


def _largest(
    kind: str, dtype: torch.dtype, slot: float, threads: int, device: torch.device
) -> _Probe:
    """Return the largest probe of which a call takes at most `slot` seconds, or the smallest."""
    build, work_of, sizes = _KINDS[kind]
    seconds = 0.0
    chosen = _Probe(lambda: None, 1)
    for size in sizes:
        work = work_of(size)
        if seconds * work / chosen.work > slot:
            break  # before it is built: that would take memory, and time for the random numbers
        chosen = _Probe(build(size, dtype, device), work)
        calls = {kind: chosen.call}
        timing = interleave(calls, rounds=2, warmup=1, threads=threads, device=device)[kind]
        seconds = min(timing.seconds)
    return chosen


def _matmul(size: int, dtype: torch.dtype, device: torch.device) -> Callable[[], object]:
    left, right, out = (_values((size, size), dtype, device) for _ in range(3))
    return partial(torch.mm, left, right, out=out)


def _convolution(batch: int, dtype: torch.dtype, device: torch.device) -> Callable[[], object]:
    images = _values((batch, _CHANNELS, _IMAGE, _IMAGE), dtype, device)
    weight = _values((_CHANNELS, _CHANNELS, 3, 3), dtype, device)
    images, weight = (t.to(memory_format=torch.channels_last) for t in (images, weight))
    return partial(F.conv2d, images, weight, padding=1)


# For each kind: the call of a size, its FLOPs, and the sizes to try, from small to large.
_KINDS: dict[str, tuple[Callable[..., Callable[[], object]], Callable[[int], int], tuple[int, ...]]]
_KINDS = {
    "matmul": (_matmul, lambda size: 2 * size**3, (128, 256, 512, 1024, 2048, 4096, 8192)),
    "convolution": (
        _convolution,
        lambda batch: 2 * batch * _IMAGE**2 * _CHANNELS**2 * 9,
        (1, 4, 16, 64, 256),
    ),
}


def _values(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    # Random, because a GPU runs faster on constants; from its own generator, to leave the
    # global one alone.
    generator = torch.Generator(device).manual_seed(0)
    return torch.rand(shape, generator=generator, device=device).to(dtype)


def _copy(device: torch.device) -> _Probe:
    source, target = (torch.ones(_COPY_MIB * 2**18, device=device) for _ in range(2))  # float32
    return _Probe(partial(target.copy_, source), 2 * _COPY_MIB * 2**20)


def _cache_mib() -> float | None:
    """The largest cache of the first core in MiB, where Linux tells; else None."""
    folder = Path("/sys/devices/system/cpu/cpu0/cache")
    sizes = [file.read_text().strip() for file in folder.glob("index*/size")]
    kib = [int(size[:-1]) for size in sizes if size.endswith("K") and size[:-1].isdigit()]
    return max(kib) / 1024 if kib else None


def _show(rate: Estimate) -> str:
    return f"{rate.value:7.1f} ({rate.low:.1f}-{rate.high:.1f}, {rate.n})"


def _check(dtypes: Sequence[str], seconds: float) -> None:
    if isinstance(dtypes, str) or not dtypes or not set(dtypes) <= set(DTYPES):
        raise ValueError(f"dtypes must be a list of some of {', '.join(DTYPES)}, got {dtypes!r}")
    if len(set(dtypes)) < len(dtypes):
        raise ValueError(f"dtypes must not repeat, got {dtypes!r}")
    if not 0 < seconds < float("inf"):
        raise ValueError(f"seconds must be a positive number, got {seconds!r}")
