"""Finding the data that ships, and trusting it only after its hash was checked.

`data/SHA256SUMS` holds the SHA-256 of every file, packed and unpacked. A damaged file would
otherwise train on garbage without a word; here it is named, with the way to mend it.
"""

import gzip
import os
import shutil
from contextlib import suppress
from pathlib import Path

from labkit.files import atomic_path, sha256


def data_root() -> Path:
    """Return the folder of the data: $LABKIT_DATA, or `data/` beside the package.

    Raises:
        FileNotFoundError: it is not there.
    """
    root = Path(os.environ.get("LABKIT_DATA") or Path(__file__).resolve().parents[2] / "data")
    if not (root / "SHA256SUMS").is_file():
        raise FileNotFoundError(
            f"no data in {root}: SHA256SUMS is missing. Run from a clone of the project, or set "
            "LABKIT_DATA to its data folder"
        )
    return root


def expected_hashes(root: Path) -> dict[str, str]:
    """Return {path below root: SHA-256} as `data/SHA256SUMS` states it."""
    lines = (root / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    parts = (line.partition(" ") for line in lines if line.strip())
    return {name.strip().lstrip("*"): digest for digest, _, name in parts}


def verified(root: Path, name: str, script: str) -> Path:
    """Return `root/name` if it is there and has the right hash.

    Args:
        root: the folder of the data.
        name: the file's path below it.
        script: in `data/`, makes the file again; the error names it.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is damaged, or `root` does not say what its hash is.
    """
    path = root / name
    mend = f"restore it with: git checkout -- data/  (or: python data/{script})"
    if not path.is_file():
        raise FileNotFoundError(f"data file {path} is missing; {mend}")
    expected = expected_hashes(root).get(name)
    if expected is None:
        raise ValueError(f"{root / 'SHA256SUMS'} does not list {name}: is it of another version?")
    if sha256(path) != expected:
        raise ValueError(f"data file {path} is damaged: its SHA-256 is not as stated; {mend}")
    return path


def unpack_verified(root: Path, name: str) -> Path:
    """Return `root/name`, unpacked from `name.gz`, both with the right hash.

    Where it cannot be written, because the folder is read-only or the disk is full, the packed file
    is returned: who reads it unpacks it each time.

    Raises:
        FileNotFoundError: the packed file is missing.
        ValueError: the packed file is damaged.
    """
    target = root / name
    if target.is_file() and sha256(target) == expected_hashes(root).get(name):
        return target
    packed = verified(root, f"{name}.gz", "make_fashion.py")
    with suppress(OSError):
        with (
            atomic_path(target) as temporary,
            gzip.open(packed) as source,
            temporary.open("wb") as out,
        ):
            shutil.copyfileobj(source, out)
        return target
    return packed
