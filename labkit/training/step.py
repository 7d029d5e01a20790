"""What a training tells of one optimizer step."""

from typing import NamedTuple


class Phases(NamedTuple):
    """Seconds of a step's parts. On an accelerator true only with `timed=True`."""

    data: float
    forward: float
    backward: float
    optimizer: float
    between: float = 0.0  # in the generators around the steps; see `labkit.training.between`


class Step:
    """What one optimizer step did.

    Attributes:
        index: number of the step, from 0.
        epoch: number of the pass over the data that its last batch belongs to, from 0.
        loss: mean over the step's targets.
        lr: learning rate of the first parameter group in this step.
    """

    # A step of a small network takes 200 microseconds: no attribute is made before it is read.
    __slots__ = ("_phases", "epoch", "index", "loss", "lr")

    def __init__(
        self, index: int, epoch: int, loss: float, lr: float, phases: tuple[float, ...]
    ) -> None:
        self.index, self.epoch, self.loss, self.lr = index, epoch, loss, lr
        self._phases = phases

    def took_between(self, seconds: float) -> None:
        """Add the seconds of the generators around the steps."""
        self._phases = (*self._phases, seconds)

    @property
    def phases(self) -> Phases:
        """Seconds of the step's parts."""
        return Phases(*self._phases)

    @property
    def seconds(self) -> float:
        """Seconds the step took."""
        return sum(self._phases)

    def __repr__(self) -> str:
        ms = self.seconds * 1e3
        return f"Step({self.index}, loss={self.loss:.4f}, lr={self.lr:.4g}, {ms:.2f} ms)"
