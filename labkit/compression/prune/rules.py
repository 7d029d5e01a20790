"""How the channels of each operation's result follow from those of its inputs.

A convolution makes new channels; batch norm, activations and pooling hand them on; an addition
joins those of its inputs, a concatenation strings them together, flattening repeats each one.
Whatever has no rule keeps its channels: they are frozen, and so are those of a tensor that is
reshaped to a fixed size, or divided by its number of channels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from torch import Tensor, fx, nn

from labkit.compression.prune.coupling import Coupling
from labkit.compression.prune.trace import Operation


@dataclass(frozen=True)
class Channels:
    """The numbers of the channels of a tensor, along its dimension `dim`."""

    dim: int
    numbers: list[int]


class Follower:
    """Follows the channels through the operations; `_RULES` says which method knows which kind.

    units: which channels are joined, which are frozen.
    channels: node of the trace -> channels of its result; None where all must stay.
    places: (tensor's name, dimension) -> (role, channels along it); see `graph.Place`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model, self.units = model, Coupling()
        self.channels: dict[fx.Node, Channels | None] = {}
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self.places: dict[tuple[str, int], tuple[str, list[int]]] = {}
        self.whole: dict[tuple[str, int], str] = {}
        # One name for each tensor, also when two modules share it.
        tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
        self.names: dict[int, str] = {}
        for name, tensor in tensors:
            self.names.setdefault(id(tensor), name)

    def follow(self, operation: Operation) -> Channels | None:
        """Note the channels of the operation's result, and return them."""
        node = operation.node
        self.shapes[node] = operation.shape or ()
        self.channels[node] = _RULES.get(operation.kind, Follower._keep)(self, operation)
        return self.channels[node]

    def settle(self) -> None:
        """Freeze what meets a weight that must stay whole elsewhere; call it at the end."""
        for key, reason in self.whole.items():
            self.units.freeze(self.places.get(key, ("", []))[1], reason)

    # ---- layers with weights

    def _conv(self, op: Operation) -> Channels | None:
        layer, rank = op.module, len(self.shapes[op.node])
        assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        dim = rank - layer.weight.ndim + 1
        numbers = self._input(op, dim)
        if layer.groups == layer.in_channels and layer.groups > 1:
            # Depthwise: output i comes from input i alone, so it is the same channel, not a new
            # one; with `times` outputs an input, all of them go with it.
            if numbers is not None:
                times = layer.out_channels // layer.in_channels
                numbers = [number for number in numbers for _ in range(times)]
            return self._pass(op, dim, numbers, "weight", "bias")
        new = self.units.new(layer.out_channels)
        # All groups of a convolution must stay equally wide. So channel i of one group goes with
        # channel i of every other, on both sides; the weight's columns count inside one group.
        if layer.groups > 1:
            numbers = numbers and self._tie(numbers, layer.groups)
            self._tie(new, layer.groups)
        return self._make(op, dim, numbers, new)

    def _linear(self, op: Operation) -> Channels:
        assert isinstance(op.module, nn.Linear)
        dim = len(self.shapes[op.node]) - 1
        return self._make(op, dim, self._input(op, dim), self.units.new(op.module.out_features))

    def _norm(self, op: Operation) -> Channels | None:
        numbers = self._input(op, 1)
        # The running statistics are buffers, and as long as the scales: they shrink with them.
        return self._pass(op, 1, numbers, "weight", "bias", "running_mean", "running_var")

    def _make(self, op: Operation, dim: int, old: list[int] | None, new: list[int]) -> Channels:
        self._note(op, "weight", 1, "reads", old)
        self._note(op, "weight", 0, "makes", new)
        self._note(op, "bias", 0, "makes", new)
        return Channels(dim, new)

    def _pass(
        self, op: Operation, dim: int, numbers: list[int] | None, *tensors: str
    ) -> Channels | None:
        for name in tensors:
            self._note(op, name, 0, "passes", numbers)
        return None if numbers is None else Channels(dim, numbers)

    # ---- operations without weights

    def _hand_on(self, op: Operation) -> Channels | None:
        return self.channels[op.node.all_input_nodes[0]]

    def _pool(self, op: Operation) -> Channels | None:
        numbers = self._input(op, 1)  # these layers work along the dimensions after the channels
        return None if numbers is None else Channels(1, numbers)

    def _mean(self, op: Operation) -> Channels | None:
        (source, *_), dims = op.node.all_input_nodes, op.argument(1, "dim", None)
        before, rank = self.channels[source], len(self.shapes[source])
        dims = {d % rank for d in ([dims] if isinstance(dims, int) else dims or [])}
        if before is None or not dims or before.dim in dims:  # it would divide by their number
            return self._keep(op)
        kept = bool(op.argument(2, "keepdim", False))
        gone = 0 if kept else sum(d < before.dim for d in dims)
        return Channels(before.dim - gone, before.numbers)

    def _flatten(self, op: Operation) -> Channels | None:
        source = op.node.all_input_nodes[0]
        before, shape = self.channels[source], self.shapes[source]
        start = op.argument(1, "start_dim", 0) % len(shape)
        end = op.argument(2, "end_dim", -1) % len(shape)
        if before is None or start < before.dim <= end or end < before.dim:
            return self._keep(op)
        if start > before.dim:
            return before
        # Each channel becomes as many neighbours as it had positions, all of the one unit.
        times = prod(shape[before.dim + 1 : end + 1])
        return Channels(before.dim, [n for n in before.numbers for _ in range(times)])

    def _reshape(self, op: Operation) -> Channels | None:
        """`x.view(batch, -1)` flattens; a size that is written out fixes the channels."""
        source, sizes = op.node.all_input_nodes[0], op.node.args[1:]
        before, shape = self.channels[source], self.shapes[source]
        if before is None or before.dim != 1 or len(sizes) != 2 or sizes[1] != -1:
            return self._keep(op)
        if self.shapes[op.node][:1] != shape[:1]:
            return self._keep(op)
        return Channels(1, [n for n in before.numbers for _ in range(prod(shape[2:]))])

    def _combine(self, op: Operation) -> Channels | None:
        """Join the channels of two tensors; one of size 1 there, or a number, changes nothing."""
        rank, found = len(self.shapes[op.node]), []
        for source in op.node.all_input_nodes:
            shape, before = self.shapes[source], self.channels[source]
            if before is not None and shape is not None:
                found.append(Channels(before.dim + rank - len(shape), before.numbers))
        if not found:
            return None
        dim, numbers = found[0].dim, found[0].numbers
        for source in op.node.all_input_nodes:
            shape, before = self.shapes[source], self.channels[source]
            size = ((1,) * (rank - len(shape)) + shape)[dim]
            if before is None and size != 1:  # a full side that must stay holds the other one
                return self._keep(op)
        if any(c.dim != dim or len(c.numbers) != len(numbers) for c in found):
            return self._keep(op)
        for other in found[1:]:
            self.units.join(numbers, other.numbers)
        return found[0]

    def _join(self, op: Operation) -> Channels | None:
        sources = op.node.all_input_nodes
        found = [c for c in map(self.channels.__getitem__, sources) if c is not None]
        dim = op.argument(1, "dim", 0) % len(self.shapes[op.node])
        if not found or any(c.dim != dim for c in found) or len(op.node.args[0]) != len(sources):  # type: ignore[arg-type]
            return self._keep(op)
        strung: list[int] = []
        for source in sources:
            before = self.channels[source]
            if before is None:
                # What must stay still takes its place in the string: frozen numbers of its own.
                before = Channels(dim, self.units.new((self.shapes[source])[dim]))
                self.units.freeze(before.numbers, f"strung together in {op.node.name}")
            strung += before.numbers
        return Channels(dim, strung)

    def _shape(self, op: Operation) -> None:
        """A size that is not the number of channels may be read freely."""
        before = self.channels[op.node.all_input_nodes[0]]
        rank = len(self.shapes[op.node.all_input_nodes[0]] or ())
        asked = op.argument(1, "dim", None) if op.name == "size" else None
        wanted = [asked] if asked is not None else [_index(user) for user in op.node.users]
        if before is not None and any(w is None or w % rank == before.dim for w in wanted):
            self._keep(op)

    def _nothing(self, _: Operation) -> None:
        """Asks nothing that depends on the number of channels."""

    # ---- bookkeeping

    def _keep(self, op: Operation) -> Channels | None:
        """Freeze all that the operation reads: its work is then what it was."""
        what = {"output": "it is the model's output", "opaque": f"{op.name} needs it whole"}
        reason = what.get(op.kind, f"{op.name} would mix or miscount it")
        # Its weights may be met elsewhere too, later in the forward pass: `settle` looks again.
        for source in op.node.all_input_nodes:
            before = self.channels[source]
            self.units.freeze(before.numbers if before is not None else [], reason)
        tensors: list[Tensor] = list(op.module.parameters()) if op.module is not None else []
        if op.kind == "get_attr":
            holder, _, name = str(op.node.target).rpartition(".")
            tensors = [getattr(self.model.get_submodule(holder), name)]
        for tensor in tensors:
            for dim in range(tensor.ndim):
                self.whole[self.names.get(id(tensor), ""), dim] = reason
        return None

    def _input(self, op: Operation, dim: int) -> list[int] | None:
        """Return the input's channels if they lie along `dim`; else freeze them."""
        before = self.channels[op.node.all_input_nodes[0]]
        if before is not None and before.dim != dim:
            self.units.freeze(before.numbers, f"{op.name} reads another dimension")
            return None
        return None if before is None else before.numbers

    def _tie(self, numbers: list[int], groups: int) -> list[int]:
        size = len(numbers) // groups
        for start in range(size, len(numbers), size):
            self.units.join(numbers[:size], numbers[start : start + size])
        return numbers[:size]

    def _note(
        self, op: Operation, name: str, dim: int, role: str, numbers: list[int] | None
    ) -> None:
        tensor = getattr(op.module, name)
        if tensor is None:
            return
        key = (self.names[id(tensor)], dim)
        if numbers is None:
            self.whole[key] = f"{op.node.target} reads what must stay whole"
        elif key in self.places:
            # A layer that is called again, or shares its weights: a row that goes is gone in both
            # calls, so the channels of both must agree.
            self.units.join(self.places[key][1], numbers)
        else:
            self.places[key] = (role, numbers)


def _index(user: fx.Node) -> int | None:
    """Return i of `shape[i]`; None when the shape is used otherwise."""
    index = user.args[1] if getattr(user.target, "__name__", "") == "getitem" else None
    return index if isinstance(index, int) else None


_RULES: dict[str, Callable[[Follower, Operation], Channels | None]] = {
    "conv": Follower._conv,
    "linear": Follower._linear,
    "norm": Follower._norm,
    "activation": Follower._hand_on,
    "same": Follower._hand_on,
    "max_pool": Follower._pool,
    "mean_pool": Follower._pool,
    "upsample": Follower._pool,
    "mean": Follower._mean,
    "flatten": Follower._flatten,
    "reshape": Follower._reshape,
    "add": Follower._combine,
    "subtract": Follower._combine,
    "multiply": Follower._combine,
    "divide": Follower._combine,
    "join": Follower._join,
    "shape": Follower._shape,
    "nothing": Follower._nothing,
}
