"""Which PyTorch `make` installs, and what a machine for which there is none is told."""

from __future__ import annotations

import http.server
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest

from labkit.cli import installing
from labkit.cli.installing import answers, main, refusal, words_for_pip


@pytest.mark.parametrize(
    ("system", "machine", "bits", "libc", "word"),
    [
        ("Linux", "x86_64", 64, "x86_64-pc-linux-gnu", ""),
        ("Linux", "aarch64", 64, "aarch64-unknown-linux-gnu", ""),
        ("Darwin", "arm64", 64, "None", ""),
        ("Windows", "AMD64", 64, "None", ""),
        ("Darwin", "x86_64", 64, "None", "Macs with an Intel processor"),
        ("Linux", "i686", 32, "i686-pc-linux-gnu", "64-bit"),
        ("Linux", "x86_64", 32, "i686-pc-linux-gnu", "64-bit"),
        ("Windows", "AMD64", 32, "None", "64-bit"),
        ("Linux", "armv7l", 32, "arm-linux-gnueabihf", "64-bit"),
        ("Linux", "x86_64", 64, "x86_64-pc-linux-musl", "musl"),
        ("Linux", "riscv64", 64, "riscv64-linux-gnu", "riscv64"),
        ("Linux", "ppc64le", 64, "powerpc64le-linux-gnu", "ppc64le"),
    ],
)
def test_a_machine_without_pytorch_gets_a_sentence(system, machine, bits, libc, word):
    said = refusal(system, machine, bits, libc)
    assert word in said and bool(said) == bool(word)
    assert not said or said.endswith(".")


@pytest.mark.parametrize(
    ("system", "gpu", "there", "words", "said"),
    [
        ("Linux", False, True, "--extra-index-url INDEX", "build for CPUs"),
        ("Linux", False, False, "", "INDEX does not answer"),
        ("Linux", True, True, "", "NVIDIA GPU"),
        ("Darwin", False, True, "", ""),
        ("Windows", False, True, "", ""),
    ],
)
def test_which_build(system, gpu, there, words, said):
    found = words_for_pip(system, "INDEX", lambda: gpu, lambda index: there)
    assert found[0] == words and said in found[1]


class Index(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.server.wait:
            time.sleep(self.server.wait)
        self.send_response(200 if self.path == "/whl/cpu/torch/" else 404)
        self.end_headers()

    def log_message(self, *words):
        pass


@pytest.fixture
def index(monkeypatch):
    """An index on the loopback address, asked without a proxy."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index)
    server.wait = 0
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}/whl/cpu"
    yield server
    server.shutdown()
    server.server_close()


def test_an_index_answers_or_is_left_alone_soon(index):
    assert answers(index.url, 20)
    assert answers(f"{index.url}/", 20)
    assert not answers(f"{index.url}/elsewhere", 20)
    assert not answers("http://127.0.0.1:9", 20)
    assert not answers("no address", 20)
    index.wait = 3
    start = time.monotonic()
    assert not answers(index.url, 0.2)
    assert time.monotonic() - start < 2.5


def test_a_driver_that_lists_nothing_is_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not installing.has_nvidia_gpu()
    program = tmp_path / "nvidia-smi"
    for says, right in (("echo 'GPU 0: A card'", True), ("exit 9", False), ("echo none", False)):
        program.write_text(f"#!/bin/sh\n{says}\n")
        program.chmod(0o755)
        assert installing.has_nvidia_gpu() == right


def test_check_refuses_and_words_does_not(monkeypatch, capsys):
    monkeypatch.setattr(installing.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(installing.platform, "machine", lambda: "x86_64")
    assert main(["check"]) == 1
    said = capsys.readouterr()
    assert said.out == "" and "Intel processor" in said.err
    assert main(["words"]) == 0
    assert capsys.readouterr() == ("\n", "")


@pytest.fixture
def project(root, tmp_path):
    """A project with this Makefile, whose Python notes what pip is told and installs nothing."""
    folder = tmp_path / "project"
    for name in ("Makefile", "pyproject.toml", "labkit/cli/installing.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, folder / name)
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    note = f'#!/bin/sh\ncase "$*" in *"pip install"*) echo "$*" > "{folder}/pip";;\n'
    python.write_text(f'{note}*installing*) exec "{sys.executable}" "$@";;\nesac\n')
    python.chmod(0o755)
    (python.parent / "pip").write_text(f"#!{python}\n")
    return folder


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "--extra-index-url INDEX --editable"),
        (["CPU_INDEX=http://127.0.0.1:9"], "--disable-pip-version-check --editable"),
        (["PIP_EXTRA=--pre"], "--disable-pip-version-check --pre --editable"),
        (["PIP_EXTRA="], "--disable-pip-version-check --editable"),
    ],
)
def test_make_takes_the_small_build_unless_told_otherwise(project, index, words, told):
    environment = {name: os.environ[name] for name in ("PATH", "no_proxy")}
    environment["CPU_INDEX"] = index.url
    result = subprocess.run(
        ["make", "-C", str(project), ".venv/lab.stamp", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert told.replace("INDEX", index.url) in " ".join((project / "pip").read_text().split())


def test_make_tells_a_machine_without_pytorch_before_it_builds_anything(project, tmp_path):
    shutil.rmtree(project / ".venv")
    program = tmp_path / "python"
    code = (
        "import platform, runpy, sys; platform.machine = lambda: 'riscv64'; "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *installing*) shift; exec "{sys.executable}" -c "{code}" "$@";;\n'
        f'*) exec "{sys.executable}" "$@";;\nesac\n'
    )
    program.chmod(0o755)
    result = subprocess.run(
        ["make", "-C", str(project), "lab", f"PYTHON={program}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode != 0
    assert "PyTorch has no build for riscv64" in result.stderr
    assert not (project / ".venv").exists()
