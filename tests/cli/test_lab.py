"""`labkit lab`: a real server, without a browser."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import psutil
import pytest

from labkit.cli import lab


def test_the_command_keeps_the_token_and_the_loopback_address(root):
    words = lab.command(root)
    assert "--ServerApp.ip=127.0.0.1" in words
    assert not any("token" in word or "password" in word for word in words)
    assert "--no-browser" not in words
    assert "--no-browser" in lab.command(root, browser=False)
    assert ("--allow-root" in words) == (os.geteuid() == 0)


def test_without_jupyterlab_it_says_what_to_install(monkeypatch, capsys):
    from labkit.cli import main

    monkeypatch.setattr(lab.importlib.util, "find_spec", lambda name: None)
    assert main(["lab"]) == 2
    assert "pip install -e '.[lab]'" in capsys.readouterr().err


@pytest.fixture
def server(root, tmp_path, monkeypatch):
    """Start the server; give its process and the address that it printed."""
    for name in ("CONFIG", "DATA", "RUNTIME"):
        monkeypatch.setenv(f"JUPYTER_{name}_DIR", str(tmp_path / name.lower()))
    process = subprocess.Popen(
        [sys.executable, "-m", "labkit.cli", "lab", "--no-browser"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for line in process.stderr:
            found = re.search(r"(http://127\.0\.0\.1:\d+)(/\S*)\?token=(\w+)", line)
            if found:
                yield process, *found.groups()
                break
        else:
            pytest.fail("the server ended without printing an address")
    finally:
        process.kill()
        process.wait(timeout=30)
        process.stderr.close()


def answer(address, path, token=None):
    headers = {"Authorization": f"token {token}"} if token else {}
    request = urllib.request.Request(address + path, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.read().decode()


def wait_until_it_listens(address):
    """The address is printed a moment before."""
    port = int(address.rpartition(":")[2])
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail(f"nothing listens at {address}")


def test_a_real_server(server):
    process, address, path, token = server
    assert path == f"/lab/tree/{lab.FIRST_NOTEBOOK}"
    # the command became the server: no process stands between it and the terminal
    assert "jupyterlab" in " ".join(psutil.Process(process.pid).cmdline())
    wait_until_it_listens(address)
    listening = {
        connection.laddr.ip
        for connection in psutil.Process(process.pid).net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    with pytest.raises(urllib.error.HTTPError) as refused:
        answer(address, "/api/contents/notebooks")
    refused.value.close()
    assert refused.value.code == 403
    contents = json.loads(answer(address, "/api/contents/", token))
    assert "notebooks" in {entry["name"] for entry in contents["content"]}
    page = answer(address, "/lab", token)
    configuration = re.search(r'id="jupyter-config-data"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert json.loads(configuration[1])["news"] == {"disabled": True}
    assert json.loads(answer(address, "/lab/api/update", token))["notification"] is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) in {0, -signal.SIGTERM}
