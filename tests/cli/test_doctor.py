"""`labkit doctor`: every check is fed a planted fault, and what is whole."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from argparse import Namespace

import pytest

from labkit.cli import doctor
from labkit.facts import Facts, machine_facts

FACTS = Facts(
    processor="A processor",
    cores=4,
    memory_gib=16.0,
    threads=4,
    instructions="AVX512, VNNI int8, AVX512 bf16, AMX bf16",
    device="cpu",
    python="3.12.1",
    torch="2.9.0",
    torchvision="0.24.0",
)


def facts(**changes):
    return dataclasses.replace(FACTS, **changes)


def numbers(kernels="amx-int8", **changes):
    return [check.status for check in doctor.check_numbers(facts(**changes), kernels)]


@pytest.mark.parametrize(
    ("check", "status"),
    [
        (doctor.check_cores(FACTS), "ok"),
        (doctor.check_cores(facts(cores=1)), "note"),
        (doctor.check_memory(FACTS), "ok"),
        (doctor.check_memory(facts(memory_gib=1.0)), "problem"),
        (doctor.check_convolutions(True), "note"),
        (doctor.check_convolutions(False), "ok"),
        (doctor.check_device(FACTS), "ok"),
        (doctor.check_device(facts(device="cuda")), "ok"),
        (doctor.check_python((3, 10)), "problem"),
        (doctor.check_python((3, 11)), "ok"),
        (doctor.check_python((3, 13)), "ok"),
        (doctor.check_python((3, 14)), "problem"),
        (doctor.check_requirements(["torch>=2.9", "numpy"]), "ok"),
        (doctor.check_requirements(["torch>=99"]), "problem"),
        (doctor.check_requirements(["no-such-package"]), "problem"),
        (doctor.check_requirements(["no-such-package; extra == 'lab'"]), "problem"),
        (doctor.check_requirements(["no-such-package; extra == 'test'"]), "ok"),
        (doctor.check_requirements(None), "note"),
        (doctor.check_kernel(None), "problem"),
        (doctor.check_kernel("6.31.0"), "note"),
        (doctor.check_kernel("7.0.1"), "problem"),
        (doctor.check_kernel("7.1.0a1"), "ok"),
        (doctor.check_kernel("8.0"), "ok"),
        (doctor.check_kernel_python(None), "problem"),
        (doctor.check_kernel_python("python"), "ok"),
        (doctor.check_kernel_python(sys.executable), "ok"),
        (doctor.check_kernel_python(shutil.which("sh") or ""), "problem"),
        (doctor.check_kernel_python("/no/such/python"), "problem"),
        (doctor.check_data([]), "ok"),
        (doctor.check_data(["x.gz is damaged"]), "problem"),
        (doctor.check_results(""), "ok"),
        (doctor.check_results("read-only"), "problem"),
        (doctor.check_browser(None), "note"),
        (doctor.check_browser("Chrome"), "ok"),
    ],
    ids=lambda value: f"{value.name}-{value.found[:20]}" if isinstance(value, doctor.Check) else "",
)
def test_checks(check, status):
    assert check.status == status
    assert check.found
    assert bool(check.advice) == (status != "ok")


def test_number_formats():
    assert numbers() == ["ok", "ok"]
    assert numbers("avx512-vnni", instructions="AVX512, AVX512 bf16") == ["note", "ok"]
    assert numbers("avx512", instructions="AVX512") == ["note", "note"]
    assert numbers("", instructions="arm64") == ["note", "note"]
    assert numbers(device="cuda") == ["ok"]


def test_seven_bits_are_told():
    _, int8 = doctor.check_numbers(facts(instructions="AVX2"), "avx2")
    assert "7 bits" in int8.found and "avx2" in int8.found


def test_cores_that_a_container_takes_away_are_told():
    limited = doctor.check_cores(facts(cores=1, threads=4), machine=8)
    assert limited.status == "note" and "the machine has 8" in limited.found
    assert "OMP_NUM_THREADS=1" in limited.advice
    assert doctor.check_cores(facts(), machine=4).found == doctor.check_cores(FACTS).found


def test_the_report_is_one_screen_and_counts_problems():
    checks = [
        doctor.Check("memory", "ok", "16 GiB"),
        doctor.Check("data", "problem", "x.gz is damaged", "mend it"),
    ]
    lines = doctor.report(checks).splitlines()
    assert lines[0].split() == ["ok", "memory", "16", "GiB"]
    assert lines[2].strip() == "-> mend it"
    assert lines[-1] == "1 to mend, see the arrows"
    assert doctor.report(checks[:1]).endswith("all well")


def test_this_machine_fits_on_one_screen():
    lines = doctor.report(list(doctor.collect())).splitlines()
    assert len(lines) <= 30
    assert machine_facts().processor in lines[0]


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("note", 0), ("problem", 1)])
def test_exit_code(monkeypatch, capsys, status, code):
    monkeypatch.setattr(doctor, "collect", lambda: [doctor.Check("x", status, "found", "mend")])
    assert doctor.main(Namespace()) == code
    assert "found" in capsys.readouterr().out


def test_damaged_and_missing_data_are_found(tmp_path, root, monkeypatch):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    assert "SHA256SUMS is missing" in doctor._data_faults()[0]
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    shutil.copy(root / "data" / "SHA256SUMS", tmp_path)
    small = [f"{name}-ubyte.gz" for name in ("t10k-labels-idx1", "train-labels-idx1")]
    for name in small:
        shutil.copy(root / "data" / "FashionMNIST" / "raw" / name, raw)
    flipped = bytearray((raw / small[0]).read_bytes())
    flipped[100] ^= 1
    (raw / small[0]).write_bytes(flipped)
    faults = set(doctor._data_faults())
    assert faults == {
        f"FashionMNIST/raw/{small[0]} is damaged",
        "FashionMNIST/raw/t10k-images-idx3-ubyte.gz is missing",
        "FashionMNIST/raw/train-images-idx3-ubyte.gz is missing",
        "speeches/speeches.jsonl.xz is missing",
        "speeches/tokenizer.json is missing",
    }


def test_results_that_cannot_be_written_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RESULTS", str(tmp_path / "results"))
    assert doctor._results_fault() == ""
    assert list((tmp_path / "results").iterdir()) == []
    (tmp_path / "file").touch()
    monkeypatch.setenv("LABKIT_RESULTS", str(tmp_path / "file" / "results"))
    assert str(tmp_path / "file") in doctor._results_fault()
