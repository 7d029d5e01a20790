"""Rules of the project as a whole. Each rule is a function, tested with planted faults as well."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

# A room may import only rooms on lower floors.
FLOORS = {
    "facts": 0,
    "files": 0,
    "table": 0,
    "data": 1,
    "models": 1,
    "measure": 2,
    "training": 2,
    "compare": 3,
    "distributed": 3,
    "compression": 3,
    "widgets": 4,
    "lessons": 5,
    "cli": 6,
}
ONLY_IN_WIDGETS = {"ipywidgets", "matplotlib", "anywidget", "IPython"}
NEVER_AT_THE_TOP = {"torchvision", "matplotlib", "ipywidgets", "psutil"}
PYTHONS = ["3.11", "3.12", "3.13"]
# Name of a module -> name of its distribution, where they differ.
DISTRIBUTIONS = {"PIL": "pillow", "IPython": "ipython", "yaml": "pyyaml"}
# What a declared dependency is sure to bring; a test looks it up in the metadata of both.
COMES_WITH = {
    "ipython": "ipykernel",
    "jupyter-client": "ipykernel",
    "packaging": "jupyterlab",
    "pillow": "matplotlib",
    "traitlets": "ipywidgets",
}
# Name on conda-forge -> name on PyPI, where they differ.
CONDA_NAMES = {
    "pytorch-cpu": "torch",
    "matplotlib-base": "matplotlib",
    "nbconvert-core": "nbconvert",
}
# What a conda environment needs besides labkit's own dependencies.
CONDA_EXTRAS = {"python", "pip", "setuptools"}


@pytest.fixture(scope="module")
def pyproject(root):
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


# ---- imports


def imports(source):
    """Yield (module, is it at the top level) for every import of a Python source."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        top = node in tree.body
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name, top
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level + (node.module or ""), top
            elif node.module == "labkit":
                for name in node.names:
                    yield f"labkit.{name.name}", top
            else:
                yield node.module, top


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
                if FLOORS.get(rest[0], 99) >= FLOORS[room]:
                    wrong.append(f"{place}: {room} imports {rest[0]}")
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
        ("data/a.py", "from labkit import unknown", ["data/a.py: data imports unknown"]),
        ("data/a.py", "from . import b", ["data/a.py: relative import ."]),
        ("new/a.py", "", ["new/a.py: the room new has no floor"]),
        ("cli/a.py", "import ipywidgets", ["cli/a.py: only widgets may import ipywidgets"]),
        ("widgets/a.py", "import ipywidgets", []),
        ("data/a.py", "import torchvision.io", ["data/a.py: torchvision at the top"]),
        ("data/a.py", "def f():\n  import torchvision", []),
    ],
)
def test_planted_imports(tmp_path, place, source, wrong):
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.write_text(source)
    assert wrong_imports(tmp_path) == wrong


def test_every_import_of_the_library_is_a_declared_dependency(root, pyproject):
    declared = {name for name, _ in dependencies(pyproject)}
    brought = {name for name, by in COMES_WITH.items() if by in declared}
    used = {
        module.split(".")[0]
        for path in (root / "labkit").rglob("*.py")
        for module, _ in imports(path.read_text(encoding="utf-8"))
    }
    foreign = used - sys.stdlib_module_names - {"labkit"}
    names = {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in foreign}
    assert names - declared - brought == set()


@pytest.mark.parametrize(("name", "by"), COMES_WITH.items())
def test_what_comes_with_a_dependency_really_does(name, by):
    requirements = map(Requirement, importlib.metadata.requires(by))
    assert name in {canonicalize_name(r.name) for r in requirements if not r.marker}


# ---- files


def test_no_file_of_the_library_is_over_300_lines(root):
    sizes = {
        str(path.relative_to(root)): len(path.read_text(encoding="utf-8").splitlines())
        for path in (root / "labkit").rglob("*.py")
    }
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


# ---- dependencies: pyproject.toml is the one list


def dependencies(pyproject, extras=("lab",)):
    """Return [(name, specifier)] of the project and of some of its extras."""
    lists = [pyproject["project"]["dependencies"]]
    lists += [pyproject["project"]["optional-dependencies"][extra] for extra in extras]
    requirements = [Requirement(line) for lines in lists for line in lines]
    return [
        (canonicalize_name(r.name), str(r.specifier)) for r in requirements if r.name != "labkit"
    ]


def drift(environment, pyproject):
    """Return how a conda environment differs from pyproject.toml."""
    wanted = dict(dependencies(pyproject))
    found = {}
    faults = []
    for line in environment["dependencies"]:
        if not isinstance(line, str):
            faults.append(f"not a conda package: {line}")
            continue
        name, range_ = re.fullmatch(r"([\w.-]+)(.*)", line).groups()
        if name in CONDA_EXTRAS:
            if name == "python" and not fits(range_, pyproject["project"]["requires-python"]):
                faults.append(f"python{range_} is outside requires-python")
            continue
        found[CONDA_NAMES.get(name, name)] = range_
    faults += [f"{name} is missing" for name in wanted.keys() - found.keys()]
    faults += [f"{name} is not in pyproject.toml" for name in found.keys() - wanted.keys()]
    faults += [
        f"{name}{found[name]} should be {name}{wanted[name]}"
        for name in wanted.keys() & found.keys()
        if SpecifierSet(found[name]) != SpecifierSet(wanted[name])
    ]
    return sorted(faults)


def fits(range_, wanted):
    """Say whether a conda range of Python allows some minor versions, all of them wanted ones."""
    range_ = re.sub(r"^=(\d[\d.]*)$", r"==\1.*", range_)
    allowed = list(SpecifierSet(range_).filter(f"3.{minor}.5" for minor in range(8, 20)))
    return bool(allowed) and all(version in SpecifierSet(wanted) for version in allowed)


@pytest.mark.parametrize("file", ["environment.yml", "binder/environment.yml"])
def test_conda_environments_agree_with_pyproject(root, pyproject, file):
    environment = yaml.safe_load((root / file).read_text(encoding="utf-8"))
    assert environment["channels"][0] == "conda-forge"
    assert drift(environment, pyproject) == []


PLANTED = {
    "project": {
        "requires-python": ">=3.11,<3.14",
        "dependencies": ["torch>=2.9"],
        "optional-dependencies": {"lab": ["ipykernel>=7.1"]},
    }
}


@pytest.mark.parametrize(
    ("lines", "faults"),
    [
        (["python=3.12", "pytorch-cpu>=2.9", "ipykernel>=7.1"], []),
        (["python>=3.11,<3.14", "pytorch-cpu>=2.9", "ipykernel>=7.1", "pip"], []),
        (["pytorch-cpu>=2.9"], ["ipykernel is missing"]),
        (["pytorch-cpu>=2.8", "ipykernel>=7.1"], ["torch>=2.8 should be torch>=2.9"]),
        (["pytorch-cpu", "ipykernel>=7.1"], ["torch should be torch>=2.9"]),
        (["pytorch-cpu>=2.9", "ipykernel>=7.1", "scipy"], ["scipy is not in pyproject.toml"]),
        (
            ["python=3.10", "pytorch-cpu>=2.9", "ipykernel>=7.1"],
            ["python=3.10 is outside requires-python"],
        ),
        (
            ["python>=3.11", "pytorch-cpu>=2.9", "ipykernel>=7.1"],
            ["python>=3.11 is outside requires-python"],
        ),
        (
            ["pytorch-cpu>=2.9", "ipykernel>=7.1", {"pip": ["torch"]}],
            ["not a conda package: {'pip': ['torch']}"],
        ),
    ],
)
def test_planted_drift(lines, faults):
    assert drift({"dependencies": lines}, PLANTED) == faults


def test_ranges_are_never_pinned_from_above(pyproject):
    extras = pyproject["project"]["optional-dependencies"]
    for name, specifier in dependencies(pyproject, extras):
        assert re.fullmatch(r">=[\d.]+", specifier), f"{name}{specifier}"


def test_ipykernel_without_updates_from_threads_is_excluded(pyproject):
    assert "7.0.1" not in SpecifierSet(dict(dependencies(pyproject))["ipykernel"])


def test_every_dependency_says_why(root):
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    block = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    lines = [line for line in block.splitlines() if re.match(r'\s+"(?!labkit\[)', line)]
    assert lines
    assert [line for line in lines if "# " not in line] == []


def test_binder_installs_labkit_alone_and_opens_the_first_notebook(root):
    script = root / "binder" / "postBuild"
    assert script.stat().st_mode & 0o111
    installs = [line for line in script.read_text().splitlines() if "pip install" in line]
    assert len(installs) == 1
    assert "--no-deps" in installs[0]
    assert "/lab/tree/notebooks/00_start_here.ipynb" in script.read_text()


def test_the_workflow_runs_every_python_that_is_supported(root, pyproject):
    workflow = yaml.safe_load((root / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["linux"]["strategy"]["matrix"]["python"] == PYTHONS
    wanted = SpecifierSet(pyproject["project"]["requires-python"])
    supported = [f"3.{minor}" for minor in range(8, 20) if f"3.{minor}.5" in wanted]
    assert supported == PYTHONS
