"""Who imports whom: only what is below, and never in a circle."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import pytest
from support.sources import import_graph, imports

# A room may import only rooms on lower floors.
FLOORS = {
    "checks": 0,
    "hints": 0,
    "seeds": 1,
    "facts": 1,
    "files": 1,
    "fingerprint": 1,
    "table": 1,
    "units": 1,
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
GROUND = 1  # single files, which may import each other: another test finds circles
DISPLAY = {"ipywidgets", "matplotlib", "anywidget", "IPython"}
NEVER_AT_THE_TOP = {"torchao", "torchvision", "matplotlib", "ipywidgets", "psutil"}


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
        for module, top in imports(path.read_text(encoding="utf-8")):
            first, *rest = module.split(".")
            if module.startswith("."):
                wrong.append(f"{place}: relative import {module}")
            elif first == "labkit" and rest and rest[0] != room:
                floor = FLOORS.get(rest[0], 99)
                if floor > FLOORS[room] or floor == FLOORS[room] != GROUND:
                    wrong.append(f"{place}: {room} imports {rest[0]}")
            elif room == "widgets" or draws(place, first):
                continue
            elif first in DISPLAY:
                wrong.append(f"{place}: only widgets may import {first}")
            elif first in NEVER_AT_THE_TOP and top and room != "cli":
                wrong.append(f"{place}: {first} at the top")
    return wrong


def draws(place, module):
    """Say whether the file is the pictures of a lesson, and the module what it draws them with."""
    return place.match("lessons/*/pictures.py") and module == "matplotlib"


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
        ("lessons/pruning/pictures.py", "import matplotlib", []),
        (
            "lessons/pruning/pictures.py",
            "import ipywidgets",
            ["lessons/pruning/pictures.py: only widgets may import ipywidgets"],
        ),
        (
            "lessons/pruning/words.py",
            "import matplotlib",
            ["lessons/pruning/words.py: only widgets may import matplotlib"],
        ),
        (
            "lessons/pictures.py",
            "import matplotlib",
            ["lessons/pictures.py: only widgets may import matplotlib"],
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


def circle(package):
    """Return the modules of one circle of imports in a package, or nothing if there is none."""
    try:
        TopologicalSorter(import_graph(package)).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_modules_import_each_other_in_a_circle(root):
    assert len(import_graph(root / "labkit")) > 100
    assert circle(root / "labkit") == []


@pytest.mark.parametrize(
    ("back", "found"),
    [
        ("import json", False),
        ("from p.room.a import f", True),
        ("from p.room import a", True),
        ("import p.room.a", True),
        ("def f():\n    from p.room.a import f", True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.room.a import f", True),
        ("from p.room import f", True),
        ("from p.other import f", False),
        ("from p.room import d", False),
    ],
)
def test_planted_circles(tmp_path, back, found):
    sources = {
        "room/__init__": "from p.room.a import f",
        "room/a": "from p.room.b import g",
        "room/b": "import p.c",
        "room/d": "",
        "c": back,
        "other": "",
    }
    for name, source in sources.items():
        path = tmp_path / "p" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    modules = circle(tmp_path / "p")
    assert ({"p.room.a", "p.room.b", "p.c"} <= set(modules)) is found
