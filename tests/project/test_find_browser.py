"""Finding a browser: what counts as one, and the ways to get one."""

from __future__ import annotations

import sys

import pytest
from support import find_browser


@pytest.fixture
def program(tmp_path):
    """Write a script that prints a line and exits with a code."""

    def write(name, line, code=0):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\necho {line!r}\nexit {code}\n")
        path.chmod(0o755)
        return str(path)

    return write


def test_this_machine_has_one():
    assert find_browser.starts(find_browser.find_browser())


def test_a_named_browser_comes_first_and_must_start(program, monkeypatch):
    chrome = program("chrome", "Google Chrome 150.0.1")
    monkeypatch.setenv("LABKIT_CHROME", chrome)
    assert find_browser.find_browser() == chrome
    monkeypatch.setenv("LABKIT_CHROME", program("broken", "Chromium 150", code=1))
    assert find_browser.find_browser() is None


@pytest.mark.parametrize(
    ("line", "code", "good"),
    [
        ("Chromium 150.0 built on Debian", 0, True),
        ("Google Chrome for Testing 150.0", 0, True),
        ("Command requires the chromium snap to be installed", 0, False),
        ("Chromium 150.0", 1, False),
        ("", 0, False),
    ],
)
def test_only_what_names_itself_and_starts_is_a_browser(program, line, code, good):
    assert find_browser.starts(program("program", line, code)) is good


def test_a_stub_is_passed_over_for_the_next_name(program, tmp_path, monkeypatch):
    program("chromium", "Command requires the chromium snap to be installed")
    real = program("google-chrome", "Google Chrome 150.0")
    monkeypatch.delenv("LABKIT_CHROME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_browser.find_browser() == real


def without_browser(monkeypatch, tmp_path):
    monkeypatch.delenv("LABKIT_CHROME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(find_browser, "MAC_PATHS", ())
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "none"))


def test_with_none_at_all_it_fails_and_says_so(tmp_path, monkeypatch, capsys):
    without_browser(monkeypatch, tmp_path)
    monkeypatch.setattr(sys, "argv", ["find_browser.py"])
    assert find_browser.main() == 1
    assert "set LABKIT_CHROME" in capsys.readouterr().err


def test_root_gets_it_from_apt_others_from_playwright(program, tmp_path, monkeypatch):
    without_browser(monkeypatch, tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert [way[0][1:] for way in find_browser.installs()] == [
        ["-m", "playwright", "install", "chromium"]
    ]
    program("apt-get", "")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    apt, playwright = find_browser.installs()
    assert apt[-1][-2:] == ["--no-install-recommends", "chromium"]
    assert playwright[0][-1] == "--with-deps"


def test_install_tries_each_way_until_a_browser_starts(program, tmp_path, monkeypatch):
    without_browser(monkeypatch, tmp_path)
    fails = program("fails", "no package", code=100)
    never = program("never", "must not run")
    chrome = tmp_path / "chromium"
    prepared = program("prepared", "Chromium 150")
    good = tmp_path / "good"
    good.write_text(f"#!/bin/sh\n/bin/mv {prepared} {chrome}\n")
    good.chmod(0o755)
    monkeypatch.setattr(find_browser, "installs", lambda: [[[fails], [never]], [[str(good)]]])
    assert find_browser.install() == str(chrome)
