"""A training in a process of its own, and the shot that ends it: notebook 01 resumes what is left.

Only a real process that is really killed shows that a checkpoint is worth something: SIGKILL leaves
no time to tidy up, just as a power cut or a machine that the cloud takes back. The process lives in
a session of its own, so that the kernel's Interrupt does not reach it; it ends with the function
that started it, whatever happens there, and by itself when nobody reads what it prints.

Run as `python -m labkit.lessons.training_loop.crash CHECKPOINT IMAGES`. The images come in a file,
because loading the whole data set a second time would cost more memory than the training.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Timer
from typing import IO

from labkit import models
from labkit.data import ImageData
from labkit.facts import threads
from labkit.lessons.memory import give_back_memory
from labkit.training import Recipe, Training, checkpoint

STEPS, SAVE_EVERY, KILL_AFTER = 120, 20, 45
"""Steps of the training, between two checkpoints, and before the shot."""


def recipe(images: ImageData) -> Recipe:
    """Return what is trained: small, on the CPU, with momentum, a schedule and shuffled data."""
    model = partial(models.convnet, width=8)
    return Recipe(model, images, steps=STEPS, batch_size=32, device="cpu")


def train_and_save(training: Training, path: Path) -> None:
    """Train to the end, with a checkpoint every few steps."""
    for step in training:
        if training.index % SAVE_EVERY == 0:
            checkpoint.save(path, training)
        print(step.index + 1, flush=True)


@dataclass(frozen=True)
class Killed:
    """How the process ended: its exit code, and the steps it had told of and had saved."""

    returncode: int
    steps: int
    saved: int

    def __repr__(self) -> str:
        how = f"by signal {-self.returncode}" if self.returncode < 0 else "by the system"
        return (
            f"The process was killed {how} after step {self.steps} of {STEPS}. "
            f"Its checkpoint holds {self.saved} steps: {self.steps - self.saved} are lost."
        )


def train_and_kill(path: Path, images: ImageData, *, timeout: float = 120.0) -> Killed:
    """Start the training in a process, kill it in the middle, and return how it ended.

    Args:
        path: where it saves its checkpoint; the images go to a file beside it.
        images: what it trains on.
        timeout: seconds after which it is killed at the latest.

    Raises:
        RuntimeError: it ended, or was stopped by the timeout, before the shot; with its error.
    """
    give_back_memory()
    reached, images_path = 0, path.with_suffix(".images")
    checkpoint.write_state(images_path, vars(images))
    with tempfile.TemporaryFile("w+") as errors:
        command = [
            sys.executable,
            "-m",
            "labkit.lessons.training_loop.crash",
            str(path),
            str(images_path),
        ]
        with process(command, errors, timeout) as child:
            assert child.stdout is not None
            for line in child.stdout:
                reached = int(line)
                if reached >= KILL_AFTER:
                    child.kill()  # SIGKILL: no handler, no last words
                    break
            returncode = child.wait()
        if reached < KILL_AFTER or returncode == 0:
            errors.seek(0)
            last_words = errors.read().strip().rpartition("\n")[2]
            raise RuntimeError(
                f"the training ended with code {returncode} after step {reached}, before it "
                f"could be killed at step {KILL_AFTER}. {last_words}".strip()
            )
    return Killed(returncode, reached, int(checkpoint.read_state(path)["index"]))


@contextmanager
def process(
    command: list[str], errors: IO[str], timeout: float
) -> Iterator["subprocess.Popen[str]"]:
    """Give a running process that is dead after the block, and after `timeout` seconds at most."""
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        start_new_session=True,
    )
    watchdog = Timer(timeout, child.kill)
    watchdog.daemon = True
    watchdog.start()
    try:
        yield child
    finally:
        watchdog.cancel()
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def main() -> None:
    """Train as the notebook does: on one thread, or the sums would differ in their last bits."""
    path, images_path = map(Path, sys.argv[1:])
    with threads(1):
        images = ImageData(**checkpoint.read_state(images_path))
        train_and_save(recipe(images).training(), path)


if __name__ == "__main__":
    main()
