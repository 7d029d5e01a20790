"""`labkit doctor`: what this machine can do, in one screen, and what to mend.

Every check is a function from what was found to a `Check`, so each can be tested with planted
faults. `collect` does the finding. A line is ok, a note (works, but know this) or a problem (some
notebook will fail or mislead); a problem says what to do.
"""

import argparse
import importlib.metadata
import json
import os
import sys
import webbrowser
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from labkit.cli import install
from labkit.compression.quantize import int8_kernels
from labkit.compression.quantize.lowering import SATURATING
from labkit.data.files import data_root, expected_hashes
from labkit.facts import SAFE_CHANNELS, Facts, breaks_strided_1x1, machine_facts
from labkit.files import clone, results_folder, sha256

MEMORY_GIB_NEEDED = 1.5  # a notebook peaks at 1.2 GB, JupyterLab takes 0.2


@dataclass(frozen=True)
class Check:
    """One line of the report: what was looked at, how it is, what was found, what to do."""

    name: str
    status: Literal["ok", "note", "problem"]
    found: str
    advice: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `labkit doctor` takes: nothing."""


def main(arguments: argparse.Namespace) -> int:
    """Print all checks; 1 when there is a problem."""
    checks = list(collect())
    print(report(checks))
    return 1 if any(check.status == "problem" for check in checks) else 0


def report(checks: Sequence[Check]) -> str:
    """Return the screen: a line for each check, its advice below it, a last line that counts."""
    lines = []
    for check in checks:
        lines.append(f"{check.status:8} {check.name:14} {check.found}")
        if check.advice:
            lines.append(f"{'':23} -> {check.advice}")
    problems = sum(check.status == "problem" for check in checks)
    lines.append("")
    lines.append("all well" if not problems else f"{problems} to mend, see the arrows")
    return "\n".join(lines)


def collect() -> Iterator[Check]:
    """Look at this machine and yield all checks, the machine first."""
    facts = machine_facts()
    yield check_cores(facts, os.cpu_count() or 1)
    yield check_memory(facts)
    yield from check_numbers(facts, int8_kernels())
    yield check_convolutions(breaks_strided_1x1())
    yield check_device(facts)
    yield check_python(sys.version_info[:2])
    requirements = importlib.metadata.requires("labkit") if _version("labkit") else None
    yield check_requirements(requirements)
    yield check_kernel(_version("ipykernel"))
    yield check_kernel_python(_kernel_python())
    yield check_data(_data_faults())
    yield check_results(_results_fault())
    yield check_browser(_browser())


def check_cores(facts: Facts, machine: int = 0) -> Check:
    """One core is enough, but then the browser's work shows up in the measurements.

    Args:
        facts: of this machine.
        machine: how many cores it has, whoever may use them.
    """
    found = f"{facts.processor}, {facts.cores} cores, torch uses {facts.threads} threads"
    if facts.cores < machine:
        found += f"; the machine has {machine}, a limit (of a container, say) allows {facts.cores}"
    if facts.threads > facts.cores:
        advice = f"threads beyond the limit are stopped: export OMP_NUM_THREADS={facts.cores}"
        return Check("processor", "note", found, advice)
    if facts.cores < 2:
        advice = "timings share the core with the browser: expect wider intervals"
        return Check("processor", "note", found, advice)
    return Check("processor", "ok", found)


def check_memory(facts: Facts) -> Check:
    """A notebook and JupyterLab must fit."""
    found = f"{facts.memory_gib:.1f} GiB"
    if facts.memory_gib < MEMORY_GIB_NEEDED:
        advice = f"notebooks need {MEMORY_GIB_NEEDED} GiB: close others, or give the container more"
        return Check("memory", "problem", found, advice)
    return Check("memory", "ok", found)


def check_numbers(facts: Facts, kernels: str) -> Iterator[Check]:
    """Which number formats this processor has instructions for, and what they cannot do.

    Args:
        facts: of this machine.
        kernels: what `int8_kernels` names.
    """
    if facts.device.startswith("cuda"):
        yield Check("bf16, int8", "ok", "tensor cores of the GPU, see notebook 03")
        return
    units = facts.instructions
    if "AMX" in units:
        yield Check("bf16", "ok", f"matrix unit ({units})")
    else:
        how = "instructions, but no matrix unit" if "bf16" in units else "emulated in fp32"
        yield Check("bf16", "note", f"{how} ({units})", "may be slower than fp32: measure it")
    if not kernels:
        yield Check(
            "int8", "note", f"no kernels for it ({units})", "smaller files, no faster models"
        )
    elif kernels in SATURATING:
        found = f"{kernels}: kernels add pairs of products in 16 bits, so weights get 7 bits"
        yield Check("int8", "note", found, "less accurate and less fast than with VNNI: measure it")
    else:
        yield Check("int8", "ok", f"{kernels}: kernels add products in 32 bits")


def check_convolutions(broken: bool) -> Check:
    """Some processors cannot train a kind of layer; pruning keeps out of its way."""
    if broken:
        found = "torch corrupts memory in backward of 1x1, strided, channels_last, 2 to 7 inputs"
        advice = f"give such a layer {SAFE_CHANNELS} input channels or more"
        return Check("convolutions", "note", found, advice)
    return Check("convolutions", "ok", "none is known to fail here")


def check_device(facts: Facts) -> Check:
    """Everything runs without a GPU."""
    if facts.device.startswith("cuda"):
        return Check("GPU", "ok", facts.device)
    return Check("GPU", "ok", "none; every notebook runs on the CPU")


def check_python(version: tuple[int, ...]) -> Check:
    """The range that pyproject.toml states."""
    found = ".".join(map(str, version))
    if not (3, 11) <= version < (3, 14):
        advice = "install Python 3.11, 3.12 or 3.13, delete .venv, run 'make lab'"
        return Check("Python", "problem", found, advice)
    return Check("Python", "ok", found)


def check_requirements(requirements: Sequence[str] | None) -> Check:
    """Compare what is installed with the ranges of pyproject.toml (those of the extra "lab" too).

    Args:
        requirements: as in the metadata of the installed package; None if it is not installed.
    """
    if requirements is None:
        return Check("packages", "note", "labkit runs from its folder, not installed", install())
    from packaging.requirements import Requirement

    faults, found = [], []
    for requirement in map(Requirement, requirements):
        if requirement.marker and not requirement.marker.evaluate({"extra": "lab"}):
            continue
        version = _version(requirement.name)
        if version is None:
            faults.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(version, prereleases=True):
            faults.append(f"{requirement.name} {version} is not {requirement.specifier}")
        elif requirement.name in {"torch", "torchvision", "jupyterlab", "ipywidgets", "anywidget"}:
            found.append(f"{requirement.name} {version}")
    if faults:
        return Check("packages", "problem", "; ".join(faults), install())
    return Check("packages", "ok", ", ".join(found) or "all in range")


def check_kernel(version: str | None) -> Check:
    """Do widgets move, and do Pause and Stop answer, while a cell or a training runs?"""
    name = "live widgets"
    if version is None:
        return Check(name, "problem", "ipykernel is missing", install())
    major, minor = (int(part) for part in version.split(".")[:2])
    if (major, minor) == (7, 0):
        found = f"ipykernel {version} loses every update that comes from a thread"
        return Check(name, "problem", found, "pip install 'ipykernel>=7.1', restart the kernel")
    if major < 7:
        found = f"ipykernel {version}: answer while training runs in the background"
        advice = "not while a cell blocks: 'run = live(race)', then 'await run' in the next cell"
        return Check(name, "note", found, advice)
    return Check(name, "ok", f"ipykernel {version}: answer while training runs")


def check_kernel_python(python: str | None) -> Check:
    """The kernel "python3" must be this environment's Python."""
    if python is None:
        return Check("kernel", "problem", "there is no kernel 'python3'", install())
    # A bare "python" becomes this one. Links stay as they are: two environments of the same Python
    # hold links to one program.
    if not (python.startswith("python") or Path(python).parent == Path(sys.executable).parent):
        found = "the kernel 'python3' belongs to another Python"
        advice = f"{Path(sys.executable).name} -m ipykernel install --sys-prefix"
        return Check("kernel", "problem", found, advice)
    return Check("kernel", "ok", "'python3' is this Python")


def check_data(faults: Sequence[str]) -> Check:
    """The data that ships must be whole."""
    if faults:
        advice = "git checkout -- data/   (or the script data/make_….py)"
        if clone() is None:
            advice = "set LABKIT_DATA to the folder data/ of a clone of the project"
        return Check("data", "problem", "; ".join(faults), advice)
    return Check("data", "ok", "all files are there, SHA-256 as stated")


def check_results(fault: str) -> Check:
    """Notebooks write their scoreboard there."""
    if fault:
        advice = "make it writable, or set LABKIT_RESULTS to a folder that is"
        return Check("results", "problem", fault, advice)
    return Check("results", "ok", "writable")


def check_browser(name: str | None) -> Check:
    """JupyterLab can be reached without one on this machine."""
    if name is None:
        advice = "'make lab' prints the address to open (over ssh: forward its port)"
        return Check("browser", "note", "none on this machine", advice)
    return Check("browser", "ok", name)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _kernel_python() -> str | None:
    """Return the program that starts the kernel "python3", or None if there is no such kernel."""
    try:
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    except ModuleNotFoundError:
        return None
    try:
        return str(KernelSpecManager().get_kernel_spec("python3").argv[0])
    except (NoSuchKernel, json.JSONDecodeError):
        return None


def _data_faults() -> list[str]:
    """Return what is wrong with the data; unpacked files may be absent, packed ones may not."""
    try:
        folder = data_root()
        faults = []
        hashes = expected_hashes(folder)
        for name, expected in hashes.items():
            path = folder / name
            if not path.is_file():
                if name.endswith(".gz") or f"{name}.gz" not in hashes:
                    faults.append(f"{name} is missing")
            elif sha256(path) != expected:
                faults.append(f"{name} is damaged")
    except (OSError, ValueError) as error:
        return [str(error)]
    return faults


def _results_fault() -> str:
    """Return why the results folder cannot be written, or an empty text."""
    try:
        folder = results_folder()
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".doctor-{os.getpid()}.tmp"
        probe.write_bytes(b"labkit")
        probe.unlink()
    except OSError as error:
        return str(error)
    return ""


def _browser() -> str | None:
    try:
        return webbrowser.get().__class__.__name__
    except webbrowser.Error:
        return None
