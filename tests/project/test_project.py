"""Rules of the project as a whole. Each rule is a function, tested with planted faults as well."""

from __future__ import annotations

import ast

import pytest
from support.common import imports

# A room may import only rooms on lower floors.
FLOORS = {
    "checks": 0,
    "seeds": 0,
    "facts": 1,
    "files": 1,
    "table": 1,
    "watch": 1,
    "data": 2,
    "models": 2,
    "plan": 3,
    "measure": 3,
    "training": 3,
    "compare": 4,
    "compression": 5,
    "distributed": 5,
    "widgets": 6,
    "lessons": 7,
    "cli": 8,
}
GROUND = 1  # single files, which may import each other; a circle would not survive `import labkit`
ONLY_IN_WIDGETS = {"ipywidgets", "matplotlib", "anywidget", "IPython"}
NEVER_AT_THE_TOP = {"torchao", "torchvision", "matplotlib", "ipywidgets", "psutil"}


# ---- imports


def wrong_imports(package):
    """Return what the files of a package import against the rules."""
    wrong = []
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package)
        room = place.parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        if room not in FLOORS:
            wrong.append(f"{place}: the room {room} has no floor")
            continue
        draws = room == "lessons" and path.name == "pictures.py"
        for module, top in imports(path.read_text(encoding="utf-8")):
            first, *rest = module.split(".")
            if module.startswith("."):
                wrong.append(f"{place}: relative import {module}")
            elif first == "labkit" and rest and rest[0] != room:
                floor = FLOORS.get(rest[0], 99)
                if floor > FLOORS[room] or floor == FLOORS[room] != GROUND:
                    wrong.append(f"{place}: {room} imports {rest[0]}")
            elif draws and first == "matplotlib":
                continue
            elif first in ONLY_IN_WIDGETS and room != "widgets":
                wrong.append(f"{place}: only widgets may import {first}")
            elif first in NEVER_AT_THE_TOP and top and room not in {"widgets", "cli"}:
                wrong.append(f"{place}: {first} at the top")
    return wrong


def test_rooms_import_only_rooms_below(root):
    assert wrong_imports(root / "labkit") == []


@pytest.mark.parametrize(
    ("place", "source", "wrong"),
    [
        ("data/a.py", "from labkit.facts import seed", []),
        ("data/a.py", "from labkit.data.b import c", []),
        ("data/a.py", "from labkit import models", ["data/a.py: data imports models"]),
        ("data/a.py", "import labkit.training.loop", ["data/a.py: data imports training"]),
        ("facts.py", "def f():\n  from labkit import data", ["facts.py: facts imports data"]),
        ("watch.py", "from labkit.table import Table", []),
        ("data/a.py", "from labkit import unknown", ["data/a.py: data imports unknown"]),
        ("data/a.py", "from . import b", ["data/a.py: relative import ."]),
        ("new/a.py", "", ["new/a.py: the room new has no floor"]),
        ("cli/a.py", "import ipywidgets", ["cli/a.py: only widgets may import ipywidgets"]),
        ("widgets/a.py", "import ipywidgets", []),
        ("lessons/x/pictures.py", "import matplotlib", []),
        (
            "lessons/x/words.py",
            "import matplotlib",
            ["lessons/x/words.py: only widgets may import matplotlib"],
        ),
        (
            "lessons/x/pictures.py",
            "import IPython",
            ["lessons/x/pictures.py: only widgets may import IPython"],
        ),
        ("data/a.py", "import torchvision.io", ["data/a.py: torchvision at the top"]),
        ("data/a.py", "def f():\n  import torchvision", []),
    ],
)
def test_planted_imports(tmp_path, place, source, wrong):
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    assert wrong_imports(tmp_path) == wrong


# ---- files


def test_no_file_is_over_300_lines(root):
    sizes = {
        str(path.relative_to(root)): len(path.read_text(encoding="utf-8").splitlines())
        for folder in ("labkit", "tests", "benchmarks", "examples")
        for path in (root / folder).rglob("*.py")
    }
    assert len(sizes) > 100
    assert {name: size for name, size in sizes.items() if size > 300} == {}


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


def test_continuous_integration_runs_make_test_and_nothing_else(root):
    script = root / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    lines = [line for line in script.read_text().splitlines() if not line.startswith("#")]
    assert lines == ["set -euo pipefail", 'cd "$(dirname "${BASH_SOURCE[0]}")/.."', "make test"]
