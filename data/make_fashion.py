"""Make the files of Fashion-MNIST in this folder again, from Debian's package.

    python data/make_fashion.py                # the installed package, else apt-get download
    python data/make_fashion.py --from FOLDER  # a folder that holds the package's four .gz files

Debian stores the publisher's four files with the name and the time taken out of the gzip header, so
that its packages build the same bytes each time. The compressed stream itself is untouched. This
script puts both back. The files are then the published ones, byte for byte: torchvision's own
FashionMNIST class accepts their MD5 and unpacks them with no network. Every file is compared with
SHA256SUMS before it is put in place under its final name.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = "dataset-fashion-mnist"
INSTALLED = Path("/usr/share/datasets/fashion-mnist")

# Seconds since 1970 in each published file's header: the train files were packed on
# 2017-08-31 at 10:50:06 UTC, the test files at 10:50:27.
PACKED_AT = {
    "train-images-idx3-ubyte.gz": 1504176606,
    "train-labels-idx1-ubyte.gz": 1504176606,
    "t10k-images-idx3-ubyte.gz": 1504176627,
    "t10k-labels-idx1-ubyte.gz": 1504176627,
}


def published(name: str, debian: bytes) -> bytes:
    """Return Debian's file with the publisher's gzip header (RFC 1952): file name and time."""
    magic, flags = debian[:3], debian[3]
    if magic != b"\x1f\x8b\x08" or flags != 0:
        raise ValueError(f"{name}: expected a gzip file without a stored name, got {debian[:4]!r}")
    stored_name = name.removesuffix(".gz").encode() + b"\0"
    header = magic + b"\x08" + struct.pack("<I", PACKED_AT[name]) + debian[8:10]
    return header + stored_name + debian[10:]


def listed() -> dict[str, str]:
    """Read SHA256SUMS: path relative to this folder -> hash."""
    lines = (HERE / "SHA256SUMS").read_text(encoding="ascii").splitlines()
    return {path: digest for digest, path in (line.split("  ", 1) for line in lines)}


def download(folder: Path) -> Path:
    """Download the package with apt, unpack it in `folder` without installing; return its data."""
    folder.chmod(0o755)  # apt downloads as a user of its own
    subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, check=True)
    package = next(folder.glob(f"{PACKAGE}_*.deb"))
    subprocess.run(["dpkg-deb", "-x", str(package), str(folder / "root")], check=True)
    return folder / "root" / INSTALLED.relative_to("/")


def make(source: Path) -> None:
    """Check and write all four files; the old ones stay until their successors are whole."""
    expected = listed()
    for name in PACKED_AT:
        content = published(name, (source / name).read_bytes())
        relative = f"FashionMNIST/raw/{name}"
        digest = hashlib.sha256(content).hexdigest()
        if digest != expected[relative]:
            raise ValueError(
                f"{source / name} makes {digest}, SHA256SUMS says {expected[relative]}"
            )
        target = HERE / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(target.name + ".tmp")
        unfinished.write_bytes(content)
        unfinished.replace(target)
        print(f"{digest}  {relative}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the Fashion-MNIST files in data/ again.")
    parser.add_argument("--from", dest="source", type=Path, help="folder with Debian's .gz files")
    source = parser.parse_args().source or (INSTALLED if INSTALLED.is_dir() else None)
    with tempfile.TemporaryDirectory() as folder:
        try:
            if source is None:
                if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
                    raise ValueError(
                        "this system has no apt-get: download the package from "
                        f"packages.debian.org/{PACKAGE}, unpack it and give --from"
                    )
                source = download(Path(folder))
            make(source)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            print(f"make_fashion.py: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
