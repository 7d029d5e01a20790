"""Rules of the project as a whole: docstrings, README, version, continuous integration."""

from __future__ import annotations

import ast
import re


def test_every_module_of_the_library_opens_with_a_docstring(root):
    silent = [
        str(path.relative_to(root))
        for path in (root / "labkit").rglob("*.py")
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_the_map_in_the_readme_names_every_top_folder(root):
    ignored = {"results", "build", "dist", "__pycache__"}
    folders = {
        path.name
        for path in root.iterdir()
        if path.is_dir() and path.name[0] != "." and path.name not in ignored
        if not path.name.endswith(".egg-info")
    }
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert {name for name in folders if f"{name}/" not in readme} == set()


def test_the_version_stands_the_same_everywhere(root, pyproject):
    import labkit

    version = pyproject["project"]["version"]
    assert labkit.__version__ == version
    assert f"## {version}" in (root / "CHANGELOG.md").read_text(encoding="utf-8")


def test_numbers_are_tested_once_more_as_on_a_laptop(root):
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    listed = re.search(r"^NUMBERS .*?\)\)$", makefile, re.M | re.S)[0]
    named = re.findall(r"(?<=[ ,])[a-z]+(?:/test_[a-z_]+\.py)?(?=[ )])", listed)
    folders = {name for name in named if "/" not in name}
    assert {"training", "measure", "models", "compare", "data"} <= folders
    files = [f"compression/{name}" for name in named if "/" in name]
    assert files and all((root / "tests" / name).exists() for name in [*folders, *files])
    assert re.search(r"\$\(LAPTOP\) \$\(RUN\) -m pytest .*\$\(NUMBERS\)$", makefile, re.M)
    assert "ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2" in makefile


def test_continuous_integration_runs_make_test_and_nothing_else(root):
    script = root / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    lines = [line for line in script.read_text().splitlines() if not line.startswith("#")]
    assert lines == ["set -euo pipefail", 'cd "$(dirname "${BASH_SOURCE[0]}")/.."', "make test"]
