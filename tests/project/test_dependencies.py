"""pyproject.toml is the one list of dependencies: of imports, environments and workflows alike."""

from __future__ import annotations

import importlib.metadata
import re
import sys

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from support.sources import imports

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


def undeclared(files, declared):
    """Return the distributions that files import and that none of the declared ones brings."""
    brought = {name for name, by in COMES_WITH.items() if by in declared}
    used = {
        module.split(".")[0]
        for path in files
        for module, _ in imports(path.read_text(encoding="utf-8"))
        if not module.startswith(".")
    }
    foreign = used - sys.stdlib_module_names - {"labkit", "benchmarks", "tests"}
    names = {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in foreign}
    return names - declared - brought


def test_every_import_of_the_library_is_a_declared_dependency(root, pyproject):
    declared = {name for name, _ in dependencies(pyproject)}
    assert undeclared((root / "labkit").rglob("*.py"), declared) == set()


def test_every_import_of_the_benchmarks_comes_with_their_extra(root, pyproject):
    """`make bench` works in a .venv in which there is no pytest."""
    declared = {name for name, _ in dependencies(pyproject, ("lab", "bench"))}
    sources = {
        path: path.read_text(encoding="utf-8") for path in (root / "benchmarks").rglob("*.py")
    }
    helpers = {
        root / "tests" / "support" / f"{module.split('.')[2]}.py"
        for source in sources.values()
        for module, _ in imports(source)
        if module.startswith("tests.support.")
    }
    assert helpers  # a browser is started by the same code as in tests
    assert undeclared([*sources, *helpers], declared) == set()
    assert undeclared(sources, declared - {"playwright"}) == {"playwright"}


@pytest.mark.parametrize(("name", "by"), COMES_WITH.items())
def test_what_comes_with_a_dependency_really_does(name, by):
    requirements = map(Requirement, importlib.metadata.requires(by))
    assert name in {canonicalize_name(r.name) for r in requirements if not r.marker}


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
