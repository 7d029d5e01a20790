"""Types: a test like the others, so that it runs beside them and not before them."""

from __future__ import annotations

import subprocess
import sys


def mypy(folder, *words):
    command = [sys.executable, "-m", "mypy", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280)


def test_the_library_passes_strict_mypy(root):
    result = mypy(root)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_planted_fault_is_found(root, tmp_path):
    (tmp_path / "a.py").write_text("def untyped(x):\n    return x\n")
    result = mypy(tmp_path, "--config-file", str(root / "pyproject.toml"), "a.py")
    assert "[no-untyped-def]" in result.stdout
