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


def test_help_alone_is_quick_to_import():
    code = (
        "import sys, labkit.cli\n"
        "slow = {'papermill', 'psutil', 'jupyterlab'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_module_is_the_same_command():
    command = [sys.executable, "-m", "labkit.cli", "run", "77"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert result.stderr.startswith("labkit run: no notebook '77'; there are: ")
