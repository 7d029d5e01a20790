"""Which split? A first estimate of memory and traffic, from arithmetic alone.

Memory decides what is possible, traffic what is sensible. The rule here is the one that people use
by hand: take the simplest split that fits. Plain data parallel first; then shards (ZeRO-1, 2, 3),
which change no layer; then tensor parallel, which needs fast links, so no wider than one machine;
then a pipeline, which sends least but waits; then combinations.

What it leaves out: buffers for sending, fragments, the memory that kernels work in, and how fast
your links are. A tenth of the memory is kept free for that. Accumulating gradients or checkpointing
activations makes activations smaller for every split, so try that before a more complicated one.
Use it to find what to measure first, not instead of measuring.

Source: Rajbhandari et al., "ZeRO", 2020 (states); Korthikanti et al., "Reducing Activation
Recomputation in Large Transformer Models", 2022 (the way activations are counted); Narayanan et
al., "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM", 2021
(combinations, bubble).
"""

from dataclasses import dataclass
from math import isqrt

from labkit import units
from labkit.checks import check_number, check_positive_int
from labkit.plan.memory import FP32, StateBytes, check_zero, zero_bytes
from labkit.plan.pipeline_schedules import bubble, in_flight
from labkit.table import Table

GB = 10**9
RESERVE = 0.1  # of a device's memory, for all that is not counted
WIDEST_TENSOR = 8  # devices that share one machine's fast links
EACH = {"fp32": FP32, "bf16": (2, 2, 12)}  # bf16: weight and gradient; fp32 copy and moments
NUMBER = {"fp32": 4, "bf16": 2}  # bytes of an activation, and of what is sent
# Numbers that autograd keeps a token and block, in multiples of the width: whole on each rank
# (inputs and outputs of the two norms), and cut by tensor parallel (query, key, value and their
# result; the MLP's hidden layer, four times as wide, before and after its activation).
KEPT_WHOLE, KEPT_CUT = 4, 4 + 8
SUMS = 4  # all-reduces in a block: two forward, two backward


@dataclass(frozen=True)
class TransformerSize:
    """Shape of a transformer, with an MLP four times as wide and a head of its own weights.

    Raises:
        ValueError: a number below 1, or `heads` that do not divide `width`.
    """

    width: int = 128
    depth: int = 4
    heads: int = 4
    vocabulary: int = 4096
    context: int = 64

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_positive_int(name, value)
        if self.width % self.heads:
            raise ValueError(f"heads must divide width, got {self.heads} and {self.width}")

    @property
    def block(self) -> int:
        """Parameters of a block: matrices 12 width², biases and norms 13 width."""
        return 12 * self.width**2 + 13 * self.width

    @property
    def embedding(self) -> int:
        """Parameters of the tables for tokens and positions."""
        return (self.vocabulary + self.context) * self.width

    @property
    def head(self) -> int:
        """Parameters of the last norm and the head."""
        return (self.vocabulary + 2) * self.width

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.depth * self.block + self.embedding + self.head


@dataclass(frozen=True)
class Split:
    """One way to spread a training over devices, and what its fullest rank needs.

    Attributes:
        size: of the model.
        batch: sequences a step, over all devices.
        data, tensor, pipeline: ranks in each direction.
        zero: stage of ZeRO over the data direction, 0 to 3.
        precision: "fp32" or "bf16".
        microbatches: of the pipeline, in one step.

    Raises:
        ValueError: a number below 1, or no such stage or precision.
    """

    size: TransformerSize
    batch: int
    data: int = 1
    tensor: int = 1
    pipeline: int = 1
    zero: int = 0
    precision: str = "fp32"
    microbatches: int = 1

    def __post_init__(self) -> None:
        for name in ("batch", "data", "tensor", "pipeline", "microbatches"):
            check_positive_int(name, getattr(self, name))
        check_zero(self.zero, lowest=0)
        _check_precision(self.precision)

    @property
    def name(self) -> str:
        """What it is called, such as "ZeRO-1 of 4 x tensor 2"."""
        parts = [f"ZeRO-{self.zero} of {self.data}" if self.zero else f"data {self.data}"]
        parts = parts if self.data > 1 else []
        ways = {"tensor": self.tensor, "pipeline": self.pipeline}
        parts += [f"{kind} {ranks}" for kind, ranks in ways.items() if ranks > 1]
        return " x ".join(parts) or "one device"

    @property
    def parameters(self) -> int:
        """Numbers of the model that the fullest rank works on, before ZeRO."""
        return self._parameters(self._fullest)

    @property
    def states(self) -> StateBytes:
        """Bytes of its weights, gradients and optimizer."""
        return self._states(self._fullest)

    @property
    def activations(self) -> int:
        """Bytes that its forward passes leave for the backward passes, at the worst moment."""
        return self._activations(self._fullest)

    @property
    def memory(self) -> int:
        """Bytes of all that is counted."""
        return self.states.total + self.activations

    @property
    def sent(self) -> int:
        """Bytes that an inner rank sends in a step; sums travel as ring all-reduces."""
        number = NUMBER[self.precision]
        hidden = number * self._tokens * self.size.width
        # Reduce-scatter and all-gather; stage 3 gathers the weights twice, forward and backward.
        rounds = 0 if self.data == 1 else 3 if self.zero == 3 else 2
        gradients = rounds * (self.data - 1) / self.data * number * self.parameters
        # Each sum is a ring all-reduce of all hidden numbers of the rank's tokens.
        sums = SUMS * self._layers * 2 * (self.tensor - 1) / self.tensor * hidden
        return round(gradients + sums + (2 * hidden if self.pipeline > 1 else 0))

    @property
    def bubble(self) -> float:
        """Share of the time that a rank of the pipeline waits, if all stages are equal."""
        return bubble(self.pipeline, self.microbatches)

    def lines(self, memory: float) -> list[str]:
        """Return the arithmetic as text, against `memory` (GB a device)."""
        kinds = ("Weights", "Gradients", "Optimizer")
        lines = [f"{self.name}: the fullest rank works on {self.parameters:,} parameters"]
        for kind, each, first, held in zip(
            kinds, EACH[self.precision], (3, 2, 1), self.states, strict=True
        ):
            shared = f" / {self.data}" if self.zero >= first else ""
            lines.append(f"{kind}: {each} bytes x {self.parameters:,}{shared} = {units.size(held)}")
        lines.append(f"Activations of {self._tokens:,} tokens: {units.size(self.activations)}")
        verdict = "fits" if fits(self, memory) else "does not fit"
        lines.append(f"Together {units.size(self.memory)} of {units.size(memory * GB)}: {verdict}")
        bubble = f"; waits {self.bubble:.0%} of a step" if self.pipeline > 1 else ""
        return [*lines, f"Sends {units.size(self.sent)} a step{bubble}"]

    @property
    def _tokens(self) -> int:
        """That a rank sees in a step."""
        return -(-self.batch // self.data) * self.size.context

    @property
    def _layers(self) -> int:
        return -(-self.size.depth // self.pipeline)

    @property
    def _fullest(self) -> int:
        """Number of the stage that needs most: the first or the last."""
        ends = {0, self.pipeline - 1}
        return max(ends, key=lambda stage: self._states(stage).total + self._activations(stage))

    def _parameters(self, stage: int) -> int:
        """Norms, biases after a sum and vocabulary stay whole; the rest of a block is cut."""
        whole = 6 * self.size.width
        blocks = self._layers * ((self.size.block - whole) // self.tensor + whole)
        embedding = self.size.embedding if stage == 0 else 0
        return blocks + embedding + (self.size.head if stage == self.pipeline - 1 else 0)

    def _states(self, stage: int) -> StateBytes:
        return zero_bytes(self._parameters(stage), self.data, self.zero, EACH[self.precision])

    def _activations(self, stage: int) -> int:
        # Each microbatch under way keeps its own; 1F1B keeps most of them on the first stage.
        alive = in_flight("1F1B", self.pipeline, self.microbatches, stage)
        tokens = -(-self._tokens // self.microbatches) * alive
        kept = self._layers * self.size.width * (KEPT_WHOLE + KEPT_CUT / self.tensor)
        if stage == self.pipeline - 1:  # the last norm's input and result, and the logits
            kept += 2 * self.size.width + self.size.vocabulary
        return round(NUMBER[self.precision] * tokens * kept)


@dataclass(frozen=True)
class Plan:
    """Splits, simplest first, and the first of them that fits. Made by `choose_split`.

    Attributes:
        splits: what is possible with this many devices; the last is one device alone.
        memory: GB (10⁹ bytes) a device.
        chosen: the simplest that fits, or None.
    """

    splits: tuple[Split, ...]
    memory: float
    chosen: Split | None

    def table(self) -> Table:
        """Return bytes, traffic and waiting of each split, as text."""
        rows = tuple(
            (
                split.name + (" ← this one" if split is self.chosen else ""),
                *map(units.size, (*split.states, split.activations, split.memory)),
                "yes" if fits(split, self.memory) else "no",
                units.size(split.sent) if split.sent else "-",
                f"{split.bubble:.0%}" if split.pipeline > 1 else "-",
            )
            for split in self.splits
        )
        headers = ("split", "weights", "gradients", "optimizer", "activations", "together")
        note = f"A device has {self.memory:g} GB; {RESERVE:.0%} of it is kept free."
        return Table((*headers, "fits", "sent a step", "waits"), rows, note)


def choose_split(
    size: TransformerSize, *, devices: int, memory: float, batch: int, precision: str = "fp32"
) -> Plan:
    """Return the ways to train a transformer on some devices, and the simplest that fits.

    Args:
        size: of the model.
        devices: of one kind; up to 8 of them share a machine's fast links.
        memory: GB (10⁹ bytes) a device.
        batch: sequences a step, over all devices.
        precision: "fp32", or "bf16" with weights, moments and gradients as in the ZeRO paper.

    Raises:
        ValueError: a number that is not positive, or another precision.
    """
    check_positive_int("devices", devices)
    check_positive_int("batch", batch)
    check_number("memory", memory)
    _check_precision(precision)

    def ways(data: int, tensor: int, pipeline: int, zero: int = 0) -> list[Split]:
        if data > batch or pipeline > size.depth or tensor > WIDEST_TENSOR or size.heads % tensor:
            return []
        # Four a stage leave a fifth of the time to the bubble at most; no more than sequences.
        micro = min(4 * pipeline, -(-batch // data)) if pipeline > 1 else 1
        return [Split(size, batch, data, tensor, pipeline, zero, precision, micro)]

    splits = [split for zero in range(4) for split in ways(devices, 1, 1, zero)]
    splits += ways(1, devices, 1) + ways(1, 1, devices)
    mixed = [
        split
        for pipeline in _divisors(devices)  # fewest stages first, then the narrowest tensor
        for tensor in _divisors(devices // pipeline)
        if sorted((pipeline, tensor, devices // pipeline // tensor))[1] > 1  # two ways or three
        for split in ways(devices // pipeline // tensor, tensor, pipeline, 1)
    ]
    # Of the many combinations one is shown: the simplest that fits, else that which needs least.
    fitting = [split for split in mixed if fits(split, memory)]
    splits += fitting[:1] or sorted(mixed, key=lambda split: split.memory)[:1]
    splits = [*(splits if devices > 1 else []), *ways(1, 1, 1)]
    return Plan(tuple(splits), memory, next((s for s in splits if fits(s, memory)), None))


def fits(split: Split, memory: float) -> bool:
    """Say whether a split's fullest rank fits into `memory` (GB), with a reserve."""
    return split.memory <= (1 - RESERVE) * memory * GB


def _check_precision(precision: str) -> None:
    if precision not in EACH:
        raise ValueError(f"precision must be one of {', '.join(EACH)}, got {precision!r}")


def _divisors(n: int) -> list[int]:
    small = [d for d in range(1, isqrt(n) + 1) if n % d == 0]
    return sorted({*small, *(n // d for d in small)})
