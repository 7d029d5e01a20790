"""Find a Chrome or Chromium that starts; with --install, get one if there is none.

    python tests/support/find_browser.py            # print its path, or fail
    python tests/support/find_browser.py --install  # ... after apt, then playwright's own build

A path in LABKIT_CHROME comes first. A program that does not answer to --version is no browser: on
Ubuntu `chromium-browser` can be a script that only says what to install.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser")
MAC_PATHS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
PLAYWRIGHTS_OWN = (
    "from playwright.sync_api import sync_playwright\n"
    "with sync_playwright() as playwright: print(playwright.chromium.executable_path)"
)


def find_browser() -> str | None:
    """Return the path of a browser that starts, or None."""
    chosen = os.environ.get("LABKIT_CHROME")
    if chosen:
        return chosen if starts(chosen) else None
    for candidate in (*NAMES, *MAC_PATHS):
        path = shutil.which(candidate)
        if path and starts(path):
            return path
    path = output_of([sys.executable, "-c", PLAYWRIGHTS_OWN])
    return path if path and starts(path) else None


def starts(path: str) -> bool:
    """Say whether the program at `path` runs and calls itself Chrome or Chromium."""
    words = (output_of([path, "--version"]) or "").split()
    return bool(words) and ("Chrome" in words or "Chromium" in words)


def output_of(command: list[str]) -> str | None:
    """Return what a command prints, or None if it fails or does not end."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def installs() -> list[list[list[str]]]:
    """Return the ways to get a browser on this machine, best first; a way is a list of commands."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    sudo = [] if root else ["sudo", "-n"]
    may_install = root or output_of(["sudo", "-n", "true"]) is not None
    playwright = [sys.executable, "-m", "playwright", "install", "chromium"]
    ways = [[playwright]]
    if may_install and shutil.which("apt-get"):
        apt = [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"]
        ways = [
            [[*apt, "update"], [*apt, "install", "--no-install-recommends", "chromium"]],
            [[*playwright, "--with-deps"]],
        ]
    return ways


def install() -> str | None:
    """Try each way until a browser starts; return its path, or None."""
    for way in installs():
        for command in way:
            print("no browser yet:", " ".join(command), flush=True)
            if subprocess.run(command, check=False).returncode:
                break
        browser = find_browser()
        if browser:
            return browser
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description="Find a Chrome or Chromium that starts.")
    parser.add_argument("--install", action="store_true", help="get one if there is none")
    arguments = parser.parse_args()
    browser = find_browser() or (install() if arguments.install else None)
    if browser is None:
        print(
            "no Chrome or Chromium that starts was found or could be installed. Install one, or "
            "set LABKIT_CHROME to its path",
            file=sys.stderr,
        )
        return 1
    print(f"browser: {browser}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
