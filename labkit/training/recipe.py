"""A recipe is a value: everything a training depends on, in one frozen object.

    base = Recipe(models.convnet, data.fashion(), optimizer=SGD(lr=0.2), epochs=3)
    other = base.but(precision="bf16")

`but` names what differs, and nothing else can: that is what makes a comparison fair.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from labkit.checks import check_positive_int
from labkit.data import Batches, ImageData
from labkit.facts import default_device
from labkit.seeds import seed_everything
from labkit.training.evaluate import evaluate
from labkit.training.loop import Training, train
from labkit.training.optimizers import SGD, AdamW
from labkit.training.precision import precision_policy
from labkit.training.schedules import Schedule, one_cycle

MEMORY_FORMATS = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}


@dataclass(frozen=True)
class Recipe:
    """All that a training depends on.

    Args:
        model: called without arguments, gives a fresh module, such as `models.convnet` or
            `partial(models.convnet, width=32)`.
        data: images to train and test on.
        optimizer: `SGD(…)`, `AdamW(…)`.
        schedule: progress -> factor of the learning rate, or None for a constant rate.
        epochs: passes over the data; 1 when neither `epochs` nor `steps` is given.
        steps: optimizer steps instead of epochs.
        batch_size: images a batch.
        accumulate: batches a step.
        precision: see `labkit.training.precision`.
        clip: largest gradient norm, or None.
        label_smoothing: share of the target spread over all classes, 0 to 1.
        memory_format: "contiguous" (NCHW) or "channels_last" (NHWC), for weights and images.
        device: None takes the GPU if there is one.
        seed: of the starting weights, the order of the data and everything random.

    Raises:
        ValueError: a value out of range; the message names the field.
    """

    model: Callable[[], nn.Module]
    data: ImageData
    optimizer: SGD | AdamW = SGD(lr=0.2)  # noqa: RUF009 - frozen, so safe to share
    schedule: Schedule | None = one_cycle()  # noqa: RUF009
    epochs: int | None = None
    steps: int | None = None
    batch_size: int = 128
    accumulate: int = 1
    precision: str = "fp32"
    clip: float | None = None
    label_smoothing: float = 0.0
    memory_format: str = "channels_last"
    device: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not callable(self.model) or isinstance(self.model, nn.Module):
            raise TypeError(
                "model must be a function that makes a fresh module, such as models.convnet, "
                f"got {type(self.model).__name__}"
            )
        for name in ("epochs", "steps", "batch_size", "accumulate"):
            if getattr(self, name) is not None:
                check_positive_int(name, getattr(self, name))
        if self.epochs is not None and self.steps is not None:
            raise ValueError(f"give epochs or steps, not both (got {self.epochs}, {self.steps})")
        precision_policy(self.precision)
        if self.memory_format not in MEMORY_FORMATS:
            raise ValueError(
                f"memory_format must be one of {', '.join(MEMORY_FORMATS)}, "
                f"got {self.memory_format!r}"
            )
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in 0 … 1, got {self.label_smoothing!r}")
        if self.batch_size > len(self.data.train_images):
            raise ValueError(
                f"batch_size {self.batch_size} is larger than the training set "
                f"({len(self.data.train_images)})"
            )

    def but(self, **changes: Any) -> "Recipe":
        """Return this recipe with the named fields changed; `steps` replaces `epochs` and back.

        Raises:
            TypeError: there is no field of that name.
            ValueError: a value out of range.
        """
        lengths = {"epochs", "steps"}
        if len(given := lengths & set(changes)) == 1:
            changes |= dict.fromkeys(lengths - given)
        return replace(self, **changes)

    def training(self, *, timed: bool = False) -> Training:
        """Return a fresh training: new weights, all generators seeded. Nothing runs yet."""
        device = self._device()
        seed_everything(self.seed)
        model = self.model().to(device).to(memory_format=MEMORY_FORMATS[self.memory_format])
        return train(
            model,
            self.batches(),
            self.optimizer.build(model.parameters()),
            loss=partial(F.cross_entropy, label_smoothing=self.label_smoothing),
            schedule=self.schedule,
            precision=self.precision,
            accumulate=self.accumulate,
            clip=self.clip,
            epochs=self.epochs,
            steps=self.steps,
            timed=timed,
        )

    def batches(self) -> Batches:
        """Return the training batches of this recipe."""
        return self.data.batches(
            self.batch_size,
            seed=self.seed,
            memory_format=MEMORY_FORMATS[self.memory_format],
            device=self._device(),
        )

    def accuracy(self, model: nn.Module) -> float:
        """Return the share of the test images (0 to 1) that `model` gets right."""
        batches = self.data.test_batches(
            memory_format=MEMORY_FORMATS[self.memory_format], device=self._device()
        )
        return evaluate(model, batches)

    def describe(self) -> dict[str, str]:
        """Return {field: its value as text}, without memory addresses."""
        return {field.name: _text(getattr(self, field.name)) for field in fields(self)}

    def differences(self, other: "Recipe") -> tuple[str, ...]:
        """Return the names of the fields in which `other` differs."""
        mine, theirs = self.describe(), other.describe()
        return tuple(name for name in mine if mine[name] != theirs[name])

    def _device(self) -> torch.device:
        return torch.device(self.device) if self.device else default_device()


def _text(value: object) -> str:
    if isinstance(value, partial):
        settings = ", ".join(f"{name}={setting!r}" for name, setting in value.keywords.items())
        return f"{value.func.__name__}({settings})"
    return getattr(value, "__name__", None) or repr(value)
