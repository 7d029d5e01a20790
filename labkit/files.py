"""Where results go, writing files so that a reader never sees half of one, and their hashes."""

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def results_folder() -> Path:
    """Return the folder that runs write to: $LABKIT_RESULTS, or `results/` in the clone."""
    chosen = os.environ.get("LABKIT_RESULTS")
    return Path(chosen).absolute() if chosen else Path(__file__).resolve().parents[1] / "results"


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target`; rename it to `target` if the block succeeds.

    Two writers do not disturb each other, and an error (full disk, unwritable folder, interrupt)
    leaves what was there before. The data is on the disk before the rename, so a power cut cannot
    leave an empty file under the final name.

    Raises:
        OSError: the folder cannot be written, or the disk is full; the message names the target.
    """
    unique = f"{os.getpid()}-{threading.get_ident()}"
    temporary = target.with_name(f".{target.name}.{unique}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(target)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(error.errno, f"cannot write {target}: {reason}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove_stale(target: Path) -> None:
    """Remove what writers that were killed have left beside `target`."""
    for left in target.parent.glob(f".{target.name}.*-*.tmp"):
        process = left.name.removesuffix(".tmp").rpartition(".")[2].partition("-")[0]
        if process.isdigit() and not _runs(int(process)):
            left.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    import psutil  # not at the top: `import labkit` stays cheap

    return bool(psutil.pid_exists(process))
