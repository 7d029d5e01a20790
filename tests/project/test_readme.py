"""What the README shows works: its Python, its commands, its links."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.cli import main

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) == 3


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_python_runs_as_it_stands(number: int, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", SNIPPETS[number]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.strip()


def test_verdicts_are_those_of_the_stored_notebooks() -> None:
    verdicts = [line for line in TEXT.splitlines() if re.search(r" over .*\(95 % ", line)]
    assert len(verdicts) == 3
    stored = "".join(
        json.dumps(json.loads(path.read_text(encoding="utf-8")), ensure_ascii=False)
        for path in (ROOT / "notebooks").glob("*.ipynb")
    )
    assert [line for line in verdicts if line not in stored] == []


def test_every_notebook_has_its_row() -> None:
    rows = re.findall(r"^\| \[(\d\d)\]\(notebooks/(\1_\w+\.ipynb)\) \| .+ \| .+ \|$", TEXT, re.M)
    there = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert [name for _, name in rows] == there


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", TEXT, flags=re.MULTILINE))
    assert {"lab", "test", "bench"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`labkit ([a-z]+)", TEXT))))
def test_commands_exist(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"labkit {command}" in capsys.readouterr().out


def test_links_and_folders_exist() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT)
    folders = re.findall(r"^\| `([^|]+?)` \|", TEXT, flags=re.MULTILINE)
    paths = links + [part for row in folders for part in row.split("`, `") if part.endswith("/")]
    assert len(paths) > 12
    assert [path for path in paths if not (ROOT / path).exists()] == []
