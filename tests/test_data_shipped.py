"""The data that ships: whole, the publisher's own bytes, and made again by the script beside it."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import shutil

import pytest
from torchvision.datasets import FashionMNIST


@pytest.fixture
def script(root, tmp_path, monkeypatch):
    """The script, working in a copy of the data folder."""
    spec = importlib.util.spec_from_file_location("make_fashion", root / "data/make_fashion.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shutil.copy(root / "data" / "SHA256SUMS", tmp_path)
    monkeypatch.setattr(module, "HERE", tmp_path)
    return module


@pytest.fixture
def debian(root, tmp_path):
    """A folder with the files as Debian packs them: without name and time in the header."""
    folder = tmp_path / "debian"
    folder.mkdir()
    for path in raw(root).glob("*.gz"):
        content = path.read_bytes()
        body = content[content.index(b"\0", 10) + 1 :]
        header = content[:3] + b"\0" + b"\xed\x0a\xda\x5e" + content[8:10]
        (folder / path.name).write_bytes(header + body)
    return folder


def raw(folder):
    data = folder / "data" if (folder / "data").is_dir() else folder
    return data / "FashionMNIST" / "raw"


def test_the_files_are_the_ones_that_torchvision_expects(root):
    for name, md5 in FashionMNIST.resources:
        assert hashlib.md5((raw(root) / name).read_bytes()).hexdigest() == md5


def test_all_hashes_that_are_stated_are_right(root):
    lines = (root / "data" / "SHA256SUMS").read_text().splitlines()
    stated = {name: digest for digest, name in (line.split("  ") for line in lines)}
    packed = sorted(name for name in stated if name.endswith(".gz"))
    assert sorted(stated) == sorted(packed + [name[:-3] for name in packed])
    table = (root / "data" / "README.md").read_text(encoding="utf-8")
    for name in packed:
        content = (root / "data" / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == stated[name]
        assert hashlib.sha256(gzip.decompress(content)).hexdigest() == stated[name[:-3]]
        line = f"| `{name.rpartition('/')[2]}` | {len(content):,} | `{stated[name]}` |"
        assert line in table


def test_the_licence_ships_with_the_data(root):
    text = (root / "data" / "README.md").read_text(encoding="utf-8")
    assert "Copyright (c) 2017 Zalando SE" in text
    assert "shall be included in all copies" in " ".join(text.split())


def test_the_script_makes_the_same_files_from_debians(root, script, debian, tmp_path):
    script.make(debian)
    for path in raw(root).glob("*.gz"):
        assert (raw(tmp_path) / path.name).read_bytes() == path.read_bytes()
    assert len(list(raw(tmp_path).iterdir())) == 4


def test_a_damaged_source_is_named_and_the_old_file_stays(script, debian, tmp_path):
    script.make(debian)
    name = "train-labels-idx1-ubyte.gz"
    before = (raw(tmp_path) / name).read_bytes()
    damaged = bytearray((debian / name).read_bytes())
    damaged[500] ^= 1
    (debian / name).write_bytes(damaged)
    with pytest.raises(ValueError, match=name):
        script.make(debian)
    assert (raw(tmp_path) / name).read_bytes() == before
    (debian / name).write_bytes(b"not gzip")
    with pytest.raises(ValueError, match=f"{name}: expected a gzip file"):
        script.make(debian)
    (debian / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        script.make(debian)
