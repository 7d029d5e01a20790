"""A training in a process that is killed in the middle: notebook 01 resumes what is left of it.

Only a process that really dies shows that a checkpoint is worth something. SIGKILL leaves no time
to tidy up, just as a power cut or a machine that the cloud takes back: no handler, no last words.
The process sends it to itself, so it is gone after `KILL_AFTER` steps even if whoever started it is
gone first. It lives in a session of its own, so that the kernel's Interrupt does not reach it.

Run as `python -m labkit.lessons.training_loop.crash CHECKPOINT IMAGES`. The images come in a file,
because loading the whole data set a second time would cost more memory than the training.
"""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from labkit import models
from labkit.data import ImageData
from labkit.facts import threads
from labkit.lessons.memory import give_back_memory
from labkit.training import Recipe, checkpoint

STEPS, SAVE_EVERY, KILL_AFTER = 120, 20, 45
"""Steps of the training, between two checkpoints, and before the shot."""


def recipe(images: ImageData) -> Recipe:
    """Return what is trained: small, on the CPU, with momentum, a schedule and shuffled data."""
    model = partial(models.convnet, width=8)
    return Recipe(model, images, steps=STEPS, batch_size=32, device="cpu")


@dataclass(frozen=True)
class Killed:
    """How the process ended: its exit code, and the steps that it had done and had saved."""

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
    """Train in a process that is killed in the middle, and return how it ended.

    Args:
        path: where it saves its checkpoint; the images go to a file beside it.
        images: what it trains on.
        timeout: seconds after which it is killed at the latest.

    Raises:
        RuntimeError: it ended, or was stopped by the timeout, before the shot; with its error.
    """
    give_back_memory()
    images_path = path.with_suffix(".images")
    checkpoint.write_state(images_path, vars(images))
    command = [sys.executable, "-m", __name__, str(path), str(images_path)]
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as late:
        raise RuntimeError(f"the training was not killed within {timeout} s") from late
    done = len(ended.stdout.splitlines())
    if done < KILL_AFTER or ended.returncode == 0:
        last_words = ended.stderr.strip().rpartition("\n")[2]
        raise RuntimeError(
            f"the training ended with code {ended.returncode} after step {done}, before it could "
            f"be killed at step {KILL_AFTER}. {last_words}".strip()
        )
    return Killed(ended.returncode, done, int(checkpoint.read_state(path)["index"]))


def main() -> None:
    """Train as the notebook does: on one thread, or the sums would differ in their last bits."""
    path, images_path = map(Path, sys.argv[1:])
    with threads(1):
        training = recipe(ImageData(**checkpoint.read_state(images_path))).training()
        for step in training:
            if training.index % SAVE_EVERY == 0:
                checkpoint.save(path, training)
            print(step.index + 1, flush=True)
            if step.index + 1 == KILL_AFTER:
                os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


if __name__ == "__main__":
    main()
