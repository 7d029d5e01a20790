"""A folder that holds one checkpoint of many ranks: the old one or the new one, never half of one.

A file can be renamed over another in one step, a folder cannot. So the tensors lie in a folder with
a name of its own, `data-…`, and the file `checkpoint.json` names it. A new checkpoint is written
beside the old one; renaming the new `checkpoint.json` over the old makes it count; then the old
tensors are removed. Whatever a killed save has left is named nowhere, and the next save removes it.
SHA-256 of all files tell damage; each rank reads its share of them.
"""

import json
import re
import shutil
import uuid
from pathlib import Path
from typing import Any

import torch.distributed as dist

from labkit.files import atomic_path, sha256

FORMAT = "labkit states 1"
INDEX = "checkpoint.json"
OURS = re.compile(r"data-[0-9a-f]{32}")  # no other folder is ever removed


def begin(folder: Path) -> Path:
    """Make room in `folder` for the files of a new checkpoint and return where. All ranks call it.

    Raises:
        ValueError: `folder` holds something else.
    """
    kept = _check_foreign(folder)
    data = folder / str(_gather(f"data-{uuid.uuid4().hex}")[0])  # rank 0's name, on all ranks
    if rank() == 0:
        _sweep(folder, kept)  # what a killed save has left would pile up
        data.mkdir(parents=True)
    barrier()
    return data


def finish(folder: Path, data: Path, content: dict[str, Any]) -> None:
    """Make the files in `data` the checkpoint. All ranks call it, when all have written.

    Args:
        folder: as given to `begin`.
        data: what `begin` returned.
        content: what else shall be in the index, fit for JSON; that of rank 0 counts.
    """
    files = union(_digests(data))  # all have written: each waits here for the others
    if rank() == 0:
        index = {"format": FORMAT, "data": data.name, "files": files, **content}
        # The one moment that counts: before it the folder holds the old checkpoint, after it the
        # new one.
        with atomic_path(folder / INDEX) as temporary:
            temporary.write_text(json.dumps(index, indent=1), encoding="utf-8")
        _sweep(folder, data.name)  # only now: until the index was renamed, the old one counted
    barrier()


def read(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return where the checkpoint's files are, undamaged, and its index. All ranks call it.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is no checkpoint, an unfinished one, or damaged.
    """
    index = _index(folder)
    data, expected = folder / index["data"], index["files"]
    found = union(_digests(data))
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            what = "missing" if name not in found else "damaged" if name in expected else "foreign"
            raise ValueError(f"checkpoint {folder} cannot be read: {name} is {what}")
    return data, index


def union(part: dict[str, Any]) -> dict[str, Any]:
    """Return the joined dictionaries of all ranks; one process needs no process group."""
    return {name: value for one in _gather(part) for name, value in one.items()}


def barrier() -> None:
    """Wait for all ranks, if there are others."""
    if dist.is_initialized():
        dist.barrier()


def rank() -> int:
    """Return this process's number, 0 if it is alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Return how many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def _gather(value: Any) -> list[Any]:
    everyones = [value] * size()
    if dist.is_initialized():
        dist.all_gather_object(everyones, value)
    return everyones


def _check_foreign(folder: Path) -> str:
    """Refuse a folder that holds something else; return the name of the data that are in use."""
    if (folder / INDEX).exists():
        return str(_index(folder)["data"])
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"folder must be a folder, got the file {folder}")
    # A save that was killed before its first index has left data and a temporary file: ours.
    for path in folder.glob("*"):
        if not (OURS.fullmatch(path.name) or path.name.startswith(f".{INDEX}.")):
            raise ValueError(
                f"folder must be new, or hold a checkpoint: {folder} holds {path.name}"
            )
    return ""


def _index(folder: Path) -> dict[str, Any]:
    if not folder.exists():
        raise FileNotFoundError(f"there is no checkpoint {folder}")
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder} holds no finished checkpoint of many ranks: {INDEX} is missing or unreadable"
        ) from error
    if (
        not isinstance(index, dict)
        or index.get("format") != FORMAT
        or not OURS.fullmatch(str(index.get("data")))
    ):
        raise ValueError(
            f"{folder} holds no checkpoint of many ranks: {INDEX} is of something else"
        )
    return index


def _sweep(folder: Path, keep: str) -> None:
    """Remove the files of all checkpoints but one."""
    for left in folder.iterdir() if folder.exists() else ():
        if OURS.fullmatch(left.name) and left.name != keep:
            shutil.rmtree(left)


def _digests(data: Path) -> dict[str, str]:
    """Return the SHA-256 of this rank's share of the files: hashing is most of the time."""
    mine = sorted(data.glob("*"))[rank() :: size()]
    return {path.name: sha256(path) for path in mine}
