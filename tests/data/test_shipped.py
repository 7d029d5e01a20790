"""The data that ships: whole, the publisher's own bytes, and made again by the script beside it."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import lzma
import shutil

import pytest
from torchvision.datasets import FashionMNIST


def script_in(root, name, folder, monkeypatch):
    """A script of the data folder, working in a copy of it."""
    spec = importlib.util.spec_from_file_location(name, root / "data" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shutil.copy(root / "data" / "SHA256SUMS", folder)
    monkeypatch.setattr(module, "HERE", folder)
    return module


@pytest.fixture
def script(root, tmp_path, monkeypatch):
    """The script that makes Fashion-MNIST."""
    return script_in(root, "make_fashion", tmp_path, monkeypatch)


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
    shipped = {
        path.relative_to(root / "data").as_posix()
        for folder in ("FashionMNIST", "speeches")
        for path in (root / "data" / folder).rglob("*")
        if path.is_file() and not path.name.endswith("-ubyte")
    }
    unpacked = {name.removesuffix(".gz") for name in shipped}
    assert set(stated) == shipped | unpacked
    table = (root / "data" / "README.md").read_text(encoding="utf-8")
    for name in shipped:
        content = (root / "data" / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == stated[name]
        if name.endswith(".gz"):
            assert hashlib.sha256(gzip.decompress(content)).hexdigest() == stated[name[:-3]]
        line = f"| `{name.rpartition('/')[2]}` | {len(content):,} | `{stated[name]}` |"
        assert line in table


def test_the_licence_ships_with_the_data(root):
    text = (root / "data" / "README.md").read_text(encoding="utf-8")
    assert "Copyright (c) 2017 Zalando SE" in text
    assert "shall be included in all copies" in " ".join(text.split())
    assert "Creative Commons Zero 1.0 Universal (CC0 1.0)" in " ".join(text.split())


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


@pytest.fixture
def speeches_script(root, tmp_path, monkeypatch):
    """The script that makes the speeches."""
    return script_in(root, "make_speeches", tmp_path, monkeypatch)


@pytest.fixture
def package(root, tmp_path):
    """A folder with the speeches in the layout of the package they come from."""
    folder = tmp_path / "package"
    folder.mkdir()
    with lzma.open(root / "data/speeches/speeches.jsonl.xz", "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            speech = json.loads(line)
            layout = {"year": speech["year"], "name": speech["president"], "party": "none"}
            path = folder / f"{speech['year']}_{number:03}_n.json"
            path.write_text(json.dumps({**layout, "text": speech["text"]}), encoding="utf-8")
    return folder


def test_the_speeches_are_made_again_byte_for_byte(
    root, speeches_script, package, tmp_path, monkeypatch
):
    shipped, made = root / "data" / "speeches", tmp_path / "speeches"
    packed = (shipped / "speeches.jsonl.xz").read_bytes()

    # Two versions of liblzma may pack the same text differently: here the text is compared.
    def pack(text):
        assert text.encode() == lzma.decompress(packed)
        return packed

    assert lzma.decompress(speeches_script.pack("naïve\n")).decode() == "naïve\n"
    monkeypatch.setattr(speeches_script, "pack", pack)
    speeches_script.make(package)
    names = sorted(path.name for path in made.iterdir())
    assert names == ["speeches.jsonl.xz", "tokenizer.json"]
    for name in names:
        assert (made / name).read_bytes() == (shipped / name).read_bytes()


def test_other_speeches_are_refused_and_the_old_files_stay(speeches_script, package, tmp_path):
    old = tmp_path / "speeches" / "speeches.jsonl.xz"
    old.parent.mkdir()
    old.write_bytes(b"old")
    for path in sorted(package.iterdir())[1:]:
        path.unlink()
    with pytest.raises(ValueError, match=r"speeches\.jsonl\.xz comes out as .* SHA256SUMS says"):
        speeches_script.make(package)
    assert [path.read_bytes() for path in old.parent.iterdir()] == [b"old"]


def test_a_folder_without_speeches_is_refused(speeches_script, tmp_path):
    with pytest.raises(ValueError, match=r"holds no \.json files"):
        speeches_script.make(tmp_path)
    for content in ("[]", "{}", "no JSON"):
        (tmp_path / "other.json").write_text(content)
        with pytest.raises(ValueError, match=r"other\.json is no speech"):
            speeches_script.make(tmp_path)
    assert not (tmp_path / "speeches").exists()
