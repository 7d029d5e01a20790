"""How the channels of each operation's result follow from those of its inputs.

A convolution makes new channels, a norm hands them on, a concatenation strings them together: what
has weights or makes channels has a rule here. Everything else is tried out (`trial`): leave some
channels out of what it reads, and see whether just these are missing from its result. What does not
pass (a softmax over channels, a reshape to a size that is written out) keeps its channels: they are
frozen, with the reason.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx, nn

from labkit.compression.prune.coupling import Coupling
from labkit.compression.prune.stand_ins import attribute
from labkit.compression.prune.trace import Operation
from labkit.compression.prune.trial import Channels, Trials


@dataclass
class Known:
    """What is known of all channels, in evaluation and in training mode.

    units: which channels are joined, which are frozen.
    places: (tensor's name, dimension) -> (role, channels along it); see `graph.Place`.
    whole: such keys -> why that dimension must stay as it is.
    counted: layers without any tensor that remember how many channels they take -> those.
    """

    units: Coupling = field(default_factory=Coupling)
    places: dict[tuple[str, int], tuple[str, list[int]]] = field(default_factory=dict)
    whole: dict[tuple[str, int], str] = field(default_factory=dict)
    counted: dict[str, list[int]] = field(default_factory=dict)

    def settle(self) -> None:
        """Freeze what meets a weight that must stay whole elsewhere; call it at the end."""
        for key, reason in self.whole.items():
            self.units.freeze(self.places.get(key, ("", []))[1], reason)


class Follower(Trials):
    """Follows the channels through a traced model; `_RULES` says which method knows which kind."""

    def __init__(self, model: nn.Module, operations: list[Operation], known: Known) -> None:
        super().__init__(model, operations, known.units)
        self.model, self.known = model, known

    def run_node(self, n: fx.Node) -> Any:
        """Note the channels of the operation's result, and return the result."""
        # First, as the operation may write over what it reads.
        op = self.operations[n]
        self.channels[n] = _RULES.get(op.kind, Follower._try)(self, op)
        return super().run_node(n)

    # ---- layers with weights

    def _conv(self, op: Operation) -> Channels | None:
        weight, transposed = self._shape(op, "weight"), op.kind == "transposed"
        groups = int(op.argument(6, "groups", 1))
        dim = len(op.shape or ()) - len(weight) + 1
        numbers = self._input(op, dim)
        # A transposed convolution has its rows and columns the other way round.
        inputs = weight[0] if transposed else weight[1] * groups
        outputs = weight[1] * groups if transposed else weight[0]
        if groups == inputs and groups > 1:
            # Depthwise: output i comes from input i alone, so it is the same channel, not a new
            # one; with `times` outputs an input, all of them go with it.
            times = outputs // inputs
            several = numbers and [number for number in numbers for _ in range(times)]
            self._note(op, "weight", 0, "passes", numbers if transposed else several)
            self._note(op, "bias", 0, "passes", several)
            return Channels(dim, several) if several else None
        new = self.units.new(outputs)
        # All groups of a convolution must stay equally wide. So channel i of one group goes with
        # channel i of every other, on both sides; one side of the weight counts inside one group.
        first = new[: outputs // groups]
        if groups > 1:
            self._tie(new, groups)
            self._tie(numbers or [], groups)
        if transposed:
            return self._make(op, dim, numbers, new, 0, first)
        return self._make(op, dim, numbers and numbers[: inputs // groups], new, 1, new)

    def _linear(self, op: Operation) -> Channels:
        dim = len(op.shape or ()) - 1
        new = self.units.new(self._shape(op, "weight")[0])
        return self._make(op, dim, self._input(op, dim), new, 1, new)

    def _norm(self, op: Operation) -> Channels | None:
        sizes = {self._shape(op, name) for name in op.tensors}
        if op.name in {"PReLU", "prelu"} and sizes == {(1,)}:  # one slope for all channels
            return self._try(op)
        numbers = self._input(op, 1)
        # The running statistics are buffers, and as long as the scales: they shrink with them.
        for name in op.tensors:
            if self._shape(op, name):  # the count of batches is a single number
                self._note(op, name, 0, "passes", numbers)
        if op.module is not None and not op.tensors and numbers is not None:
            if str(op.node.target) in self.known.counted:
                self.units.join(self.known.counted[str(op.node.target)], numbers)
            self.known.counted[str(op.node.target)] = numbers
        return None if numbers is None else Channels(1, numbers)

    def _group_norm(self, op: Operation) -> Channels | None:
        """A whole group can go, as no other one reads it; a part of one is in the others' mean."""
        numbers = self._input(op, 1)
        if numbers is not None:
            size = len(numbers) // int(op.argument(1, "num_groups", 1))
            for start in range(0, len(numbers), size):
                group = numbers[start : start + size]
                self.units.join(group, [group[0]] * size)
        return self._norm(op)

    def _make(
        self,
        op: Operation,
        dim: int,
        old: list[int] | None,
        new: list[int],
        reads: int,
        made: list[int],
    ) -> Channels:
        self._note(op, "weight", reads, "reads", old)
        self._note(op, "weight", 1 - reads, "makes", made)
        self._note(op, "bias", 0, "makes", new)
        return Channels(dim, new)

    # ---- operations without weights

    def _hand_on(self, op: Operation) -> Channels | None:
        return self.channels[op.node.all_input_nodes[0]]

    def _join(self, op: Operation) -> Channels | None:
        sources = op.node.all_input_nodes
        found = [c for c in map(self.channels.__getitem__, sources) if c is not None]
        dim = op.argument(1, "dim", 0) % len(op.shape or ())
        given = op.argument(0, "tensors", ())
        if not found or any(c.dim != dim for c in found) or len(given) != len(sources):
            return self._try(op)
        strung: list[int] = []
        for source in sources:
            before = self.channels[source]
            if before is None:
                # What must stay still takes its place in the string: frozen numbers of its own.
                size = (self.operations[source].shape or ())[dim]
                before = Channels(dim, self.units.new(size))
                self.units.freeze(before.numbers, f"strung together in {op.node.name}")
            strung += before.numbers
        return Channels(dim, strung)

    def _try(self, op: Operation) -> Channels | None:
        if op.kind == "number":
            return None  # a size may be asked for freely; what is done with it is tried
        self._hold(op, f"{op.name} needs it whole")
        if not self._with_channels(op.node.all_input_nodes):
            return None
        found = self.tried(op.node) if op.shape is not None else None
        return self._keep(op) if found is None else found

    # ---- bookkeeping

    def _keep(self, op: Operation) -> Channels | None:
        """Freeze all that the operation reads: its work is then what it was."""
        output = op.kind == "output"
        reason = "it is the model's output" if output else f"{op.name} needs it whole"
        for source in op.node.all_input_nodes:
            before = self.channels[source]
            self.units.freeze(before.numbers if before is not None else [], reason)
        self._hold(op, reason)
        return None

    def _hold(self, op: Operation, reason: str) -> None:
        """Keep the tensors that it reads, its own and others': they may be met elsewhere too."""
        read = [op, *(self.operations[s] for s in op.node.all_input_nodes if s.op == "get_attr")]
        for name in [name for source in read for name in source.tensors.values()]:
            for dim in range(attribute(self.model, name).ndim):
                self.known.whole[name, dim] = reason

    def _nothing(self, _: Operation) -> None:
        """Inputs and weights: the one must stay, the others are held by who uses them."""

    def _input(self, op: Operation, dim: int) -> list[int] | None:
        """Return the input's channels if they lie along `dim`; else freeze them."""
        before = self.channels[op.node.all_input_nodes[0]]
        if before is not None and before.dim != dim:
            self.units.freeze(before.numbers, f"{op.name} reads another dimension")
            return None
        return None if before is None else before.numbers

    def _tie(self, numbers: list[int], groups: int) -> None:
        size = len(numbers) // groups
        for start in range(size, len(numbers), size or 1):
            self.units.join(numbers[:size], numbers[start : start + size])

    def _shape(self, op: Operation, name: str) -> tuple[int, ...]:
        tensor: Tensor = attribute(self.model, op.tensors[name])
        return tuple(tensor.shape)

    def _note(
        self, op: Operation, name: str, dim: int, role: str, numbers: list[int] | None
    ) -> None:
        if name not in op.tensors:
            return
        key, places = (op.tensors[name], dim), self.known.places
        if numbers is None:
            self.known.whole[key] = f"{op.node.target} reads what must stay whole"
        elif key in places:
            # A layer that is called again, or shares its weights: a row that goes is gone in both
            # calls, so the channels of both must agree.
            self.units.join(places[key][1], numbers)
        else:
            places[key] = (role, numbers)


_RULES: dict[str, Callable[[Follower, Operation], Channels | None]] = {
    "conv": Follower._conv,
    "transposed": Follower._conv,
    "linear": Follower._linear,
    "norm": Follower._norm,
    "by_channel": Follower._norm,
    "group_norm": Follower._group_norm,
    "same": Follower._hand_on,
    "join": Follower._join,
    "placeholder": Follower._nothing,
    "get_attr": Follower._nothing,
    "output": Follower._keep,
}
