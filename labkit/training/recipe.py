"""A recipe is a value: everything a training depends on, in one frozen object.

    base = Recipe(models.convnet, data.fashion(), optimizer=SGD(lr=0.2), epochs=3)
    other = base.but(precision="bf16")

`but` names what differs, and nothing else can: that is what makes a comparison fair.
"""

from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from labkit.checks import check_positive_int, device_of, explaining
from labkit.facts import default_device
from labkit.fingerprint import fingerprint
from labkit.seeds import check_seed, seed_everything
from labkit.training.evaluate import evaluate, scores
from labkit.training.optimizers import SGD, Optimizer
from labkit.training.precision import Precision, precision_policy
from labkit.training.run import Between, Training, train
from labkit.training.schedules import Schedule, one_cycle
from labkit.training.task import Batch, Task, check_task, classify

MEMORY_FORMATS = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}


class SizedBatches(Sized, Iterable[Batch], Protocol):
    """Batches of an epoch, with a length."""


@runtime_checkable
class Data(Protocol):
    """What a recipe asks of its data; `labkit.data` has images and texts."""

    @property
    def train_size(self) -> int:
        """Examples to train on."""

    @property
    def fingerprint(self) -> str:
        """A text that differs where the data do."""

    def batches(
        self,
        batch_size: int,
        *,
        seed: int,
        memory_format: torch.memory_format,
        device: torch.device,
    ) -> SizedBatches:
        """Return training batches, in a new order each epoch."""

    def test_batches(
        self, *, memory_format: torch.memory_format, device: torch.device
    ) -> SizedBatches:
        """Return the batches to evaluate on, the same each time."""


@dataclass(frozen=True)
class Recipe:
    """All that a training depends on.

    Args:
        model: called without arguments, gives a fresh module, such as `models.convnet` or
            `partial(models.convnet, width=32)`.
        data: what to train and test on, such as `data.fashion()`.
        task: what is learned; it must be able to read the data's batches.
        optimizer: `SGD(…)`, `AdamW(…)`, or another value whose `build(model)` makes one.
        schedule: progress -> factor of the learning rate, or None for a constant rate.
        epochs: passes over the data; 1 when neither `epochs` nor `steps` is given.
        steps: optimizer steps instead of epochs.
        batch_size: examples a batch.
        accumulate: batches a step.
        precision: see `labkit.training.precision`.
        clip: largest gradient norm, or None.
        augment: batch -> changed batch, on the device, or None.
        between: generators around the steps, such as `(average_weights(0.99),)`.
        memory_format: "contiguous" (NCHW) or "channels_last" (NHWC), for weights and images.
        device: None takes the GPU if there is one.
        seed: of the starting weights, the order of the data and everything random.

    Raises:
        ValueError: a value out of range; the message names the field.
    """

    model: Callable[[], nn.Module]
    data: Data
    task: Task = classify()  # noqa: RUF009
    optimizer: Optimizer = SGD(lr=0.2)  # noqa: RUF009 - frozen, so safe to share
    schedule: Schedule | None = one_cycle()  # noqa: RUF009
    epochs: int | None = None
    steps: int | None = None
    batch_size: int = 128
    accumulate: int = 1
    precision: str | Precision = "fp32"
    clip: float | None = None
    augment: Callable[[Batch], Batch] | None = None
    between: tuple[Between, ...] = ()
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
        check_seed(self.seed)
        precision_policy(self.precision)
        if self.memory_format not in MEMORY_FORMATS:
            raise ValueError(
                f"memory_format must be one of {', '.join(MEMORY_FORMATS)}, "
                f"got {self.memory_format!r}"
            )
        check_task(self.task)
        if self.batch_size > self.data.train_size:
            raise ValueError(
                f"batch_size {self.batch_size} is larger than the training set "
                f"({self.data.train_size})"
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
        """Return a fresh training: new weights, all generators seeded. Nothing runs yet.

        Raises:
            TypeError: the recipe's model() made no module.
            ValueError: model() or the optimizer's build(model) failed, or there is no such device.
        """
        device = self._device()
        seed_everything(self.seed)
        with explaining("model()"):
            model = self.model()
        if not isinstance(model, nn.Module):
            raise TypeError(f"model() must make a module, made {type(model).__name__}")
        model = model.to(device).to(memory_format=MEMORY_FORMATS[self.memory_format])
        with explaining("optimizer.build(model)"):
            optimizer = self.optimizer.build(model)
        return train(
            model,
            self.batches(),
            optimizer,
            task=self.task,
            schedule=self.schedule,
            precision=self.precision,
            accumulate=self.accumulate,
            clip=self.clip,
            augment=self.augment,
            between=self.between,
            epochs=self.epochs,
            steps=self.steps,
            timed=timed,
        )

    def trained(self) -> nn.Module:
        """Train to the end; return the model to answer with, in evaluation mode."""
        training = self.training()
        for _ in training:
            pass
        return training.answering.eval()

    def batches(self) -> SizedBatches:
        """Return the training batches of this recipe."""
        return self.data.batches(
            self.batch_size,
            seed=self.seed,
            memory_format=MEMORY_FORMATS[self.memory_format],
            device=self._device(),
        )

    def test_batches(self) -> SizedBatches:
        """Return the batches that this recipe's models are evaluated on."""
        return self.data.test_batches(
            memory_format=MEMORY_FORMATS[self.memory_format], device=self._device()
        )

    def scores(self, model: nn.Module) -> Tensor:
        """Return the task's score of each test example, float (examples,), on the CPU."""
        return scores(model, self.test_batches(), self.task)

    def evaluate(self, model: nn.Module) -> float:
        """Return the mean score: the share of right answers (0 to 1), or the loss in nats."""
        return evaluate(model, self.test_batches(), self.task)

    def fingerprints(self) -> dict[str, str]:
        """Return {field: a text that is equal where the values are}; see `labkit.fingerprint`."""
        return {field.name: fingerprint(getattr(self, field.name)) for field in fields(self)}

    def differences(self, other: "Recipe") -> tuple[str, ...]:
        """Return the names of the fields in which `other` differs, by value.

        What cannot be compared, such as two lambdas, counts as different.
        """
        mine, theirs = self.fingerprints(), other.fingerprints()
        return tuple(name for name in mine if mine[name] != theirs[name])

    def _device(self) -> torch.device:
        return device_of(self.device) if self.device else default_device()
