"""Fixtures of the command line: `labkit run` in this process, with results of its own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from labkit.cli import main


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Results go to a folder of this test; the environment is afterwards as it was before."""
    monkeypatch.setenv("LABKIT_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("LABKIT_PROFILE", "")
    return tmp_path / "results"


@pytest.fixture
def labkit_run(results, capfd):
    """Call `labkit run`; give its exit code and what it and its kernels wrote."""

    def run(*words):
        code = main(["run", *map(str, words)])
        written = capfd.readouterr()
        return SimpleNamespace(returncode=code, stdout=written.out, stderr=written.err)

    return run
