"""Where results go, writing files so that a reader never sees half of one, and their hashes."""

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

LONGEST_NAME = 200
"""Bytes of a name that still leave room, of the 255 that file systems allow, for what a temporary
name adds to it."""


def clone() -> Path | None:
    """Return the top folder of the clone that this package lies in; None where pip installed it."""
    folder = Path(__file__).resolve().parents[1]
    installed = folder.name in ("site-packages", "dist-packages")
    return folder if (folder / "notebooks").is_dir() and not installed else None


def results_folder() -> Path:
    """Return the folder that runs write to: $LABKIT_RESULTS, or `results/` in the clone.

    Without a clone it is `results/` in the working folder, never a place among installed packages.
    """
    chosen = os.environ.get("LABKIT_RESULTS")
    return Path(chosen).absolute() if chosen else (clone() or Path.cwd()) / "results"


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target`; rename it to `target` if the block succeeds.

    Two writers do not disturb each other, and an error (full disk, unwritable folder, interrupt)
    leaves what was there before. The data is on the disk before the rename, so a power cut cannot
    leave an empty file under the final name. The new file has the mode of the old one; where
    `target` is a link, what it points to is written.

    Raises:
        OSError: the folder cannot be written, the disk is full, or `target` is write-protected or
            no plain file, such as a folder or a FIFO; the message names the target.
        ValueError: `target` cannot be the name of a file.
    """
    temporary = None
    try:
        place, before = _find(target)
        place.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(place)
        temporary = place.with_name(f"{_beginning(place)}{os.getpid()}-{threading.get_ident()}.tmp")
        if before is not None:  # nobody who may not read the old one reads the new one meanwhile
            temporary.touch(stat.S_IMODE(before.st_mode))
        yield temporary
        if before is not None:
            _make_alike(temporary, before)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(place)
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(error.errno, f"cannot write {target}: {reason}") from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find(target: Path) -> tuple[Path, os.stat_result | None]:
    """Return where links lead, and the status of the file there; None if there is none yet."""
    try:
        place = Path(os.path.realpath(target))
        status = place.stat()
    except FileNotFoundError:
        return place, None
    except ValueError as error:  # a null character, or one that no name can hold
        raise ValueError(f"{str(target)!r} cannot be the name of a file: {error}") from None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if not stat.S_ISREG(status.st_mode):  # renaming would put a file in the place of the device
        raise OSError(errno.EINVAL, "it is no plain file")
    if not os.access(place, os.W_OK):  # renaming asks the folder only
        raise PermissionError(errno.EACCES, "it is write-protected")
    return place, status


def _make_alike(temporary: Path, before: os.stat_result) -> None:
    """Give a file the owner, as far as this process may, and the mode of the one it replaces."""
    if hasattr(os, "chown"):
        with suppress(OSError):
            os.chown(temporary, before.st_uid, before.st_gid)
    temporary.chmod(stat.S_IMODE(before.st_mode))


def _beginning(place: Path) -> str:
    """Return what all temporary names of a file begin with."""
    name = os.fsencode(place.name)
    return f".{place.name if len(name) <= LONGEST_NAME else hashlib.sha256(name).hexdigest()}."


def _remove_stale(place: Path) -> None:
    """Remove what writers that were killed have left beside `place`."""
    for left in place.parent.glob(f"{escape(_beginning(place))}*-*.tmp"):
        process = left.name.removesuffix(".tmp").rpartition(".")[2].partition("-")[0]
        if process.isdigit() and not _runs(int(process)):
            left.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    import psutil  # not at the top: `import labkit` stays cheap

    return bool(psutil.pid_exists(process))
