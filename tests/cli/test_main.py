"""The command line as a whole: what it accepts, and its exit codes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from labkit.cli import COMMANDS, main


def test_every_command_has_help(capsys):
    for name in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        assert stop.value.code == 0
        assert f"labkit {name}" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["paint"], ["run"], ["board", "--paint"]])
def test_what_is_not_understood_exits_2_and_shows_usage(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert "usage: labkit" in capsys.readouterr().err


def test_module_is_the_same_command_and_help_is_quick_to_import():
    code = (
        "import runpy, sys\n"
        "sys.argv = ['labkit', '--help']\n"
        "try:\n"
        "    runpy.run_module('labkit.cli', run_name='__main__')\n"
        "finally:\n"
        "    slow = {'papermill', 'psutil', 'jupyterlab'} & set(sys.modules)\n"
        "    assert not slow, slow"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: labkit")


def test_an_unknown_notebook_is_named_with_those_there_are(capsys):
    assert main(["run", "77"]) == 2
    assert capsys.readouterr().err.startswith("labkit run: no notebook '77'; there are: ")


def test_an_interrupt_exits_130(monkeypatch, capsys):
    from labkit.cli import doctor

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "collect", interrupted)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "labkit doctor: interrupted\n"
