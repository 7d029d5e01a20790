"""Which channels have the same value whatever the input is?

Run the model on not-a-number. Whatever depends on the input then comes out as not-a-number, for
torch's own arithmetic hands it on; whatever comes out as a number is the same for every input. Only
a product with zero needs care: zero times not-a-number is not-a-number, while zero times any input
is zero. So what reads through zero weights, and batch norms with a scale of zero, have rules here.

The run knows what a layer *always* gives, so it misses a ReLU that merely never wakes on the data.
Bounds for a range of inputs (interval arithmetic, or Zhang et al., CROWN, 2018) find more in
principle. On trained nets that were still accurate they found nothing more, and behind two layers
they are too loose to.

It runs in float64; a float32 model has the same constants up to its rounding.
"""

from math import nan
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from labkit.compression.checks import copied
from labkit.compression.prune.trace import Operation, check_overwriting

ROUNDING = 1e-9  # of a constant: by how much its positions may differ in float64
# Kinds of operations that torch can run on not-a-number; all others are taken to vary.
_PRODUCTS = {"conv", "linear"}
_RUN = {"placeholder", "norm", "activation", "same", "max_pool", "mean_pool", "upsample", "mean"}
_RUN |= {"flatten", "reshape", "add", "subtract", "multiply", "join"}


def constants(
    model: nn.Module, operations: list[Operation], example: tuple[Tensor, ...]
) -> dict[fx.Node, Tensor]:
    """Return, for each convolution and linear module, what is constant of its input.

    Args:
        model, operations: from `trace`.
        example: the inputs that it was traced with; only their shapes matter.

    Returns:
        Node of the layer -> value of each input channel (channels,), float64; nan where it varies.

    Raises:
        ValueError: the model writes over a tensor that is read again.
    """
    check_overwriting(operations)
    run = _Run(copied(model).double().cpu(), operations)
    run.run(*(torch.full(x.shape, nan, dtype=torch.float64) for x in example))
    return run.found


def pads_with_zeros(op: Operation) -> bool:
    """Say whether a convolution or pooling layer sees zeros around its input."""
    padding = op.argument(3, "padding", 0)
    sizes = padding if isinstance(padding, tuple | list) else (padding,)
    zeros = getattr(op.module, "padding_mode", "zeros") == "zeros"
    return zeros and any(size not in (0, "valid") for size in sizes)


class _Run(fx.Interpreter):
    """Runs the traced model on inputs that are not numbers."""

    def __init__(self, model: nn.Module, operations: list[Operation]) -> None:
        super().__init__(fx.GraphModule(model, operations[0].node.graph))
        self.operations = {operation.node: operation for operation in operations}
        self.found: dict[fx.Node, Tensor] = {}

    @torch.no_grad()
    def run_node(self, n: fx.Node) -> Any:
        """Return the operation's result; nan where it depends on the input, or may."""
        op = self.operations[n]
        given = self.fetch_args_kwargs_from_env(n)[0]
        if op.shape is None:  # sizes must be known, as others are computed with them
            sizes = op.kind == "number" or not any(map(torch.is_tensor, given))
            return super().run_node(n) if sizes and not any(arg is None for arg in given) else None
        if op.kind in _PRODUCTS and op.module is not None:
            return self._product(op, self.env[n.all_input_nodes[0]])
        # A norm that is called as a function takes its scales from elsewhere: no rule below.
        if op.kind not in _RUN or _random(op) or (op.kind == "norm" and op.module is None):
            return torch.full(op.shape, nan, dtype=torch.float64)
        return self._mend(op, given, super().run_node(n))

    def _product(self, op: Operation, x: Tensor) -> Tensor:
        """A sum over the inputs that are known; it varies if a weight meets one that is not."""
        layer: Any = self.module.get_submodule(str(op.node.target))
        dim = x.ndim - 1 if op.kind == "linear" else x.ndim - layer.weight.ndim + 1
        self.found[op.node] = _alike(x.movedim(dim, 0).flatten(1))
        unknown = x.isnan()
        if pads_with_zeros(op):  # at the border the layer reads 0 in the place of a constant
            unknown |= x != 0
        meets = {"weight": (layer.weight != 0).double()}
        meets |= {} if layer.bias is None else {"bias": torch.zeros_like(layer.bias)}
        varies = functional_call(layer, meets, unknown.double()) > 0
        result: Tensor = layer(x.masked_fill(unknown, 0.0))
        return result.masked_fill(varies, nan)

    def _mend(self, op: Operation, given: Any, result: Tensor) -> Tensor:
        """Put right what zero times not-a-number made wrong, and what padding did."""
        if op.kind == "multiply" and len(given) == 2:
            zero = [torch.as_tensor(side) == 0 for side in given]
            return result.masked_fill(zero[0] | zero[1], 0.0)
        if op.kind == "norm":
            norm: Any = self.module.get_submodule(str(op.node.target))
            dead = None if norm.weight is None else norm.weight == 0
            if dead is not None:
                result[:, dead] = norm.bias[dead].view(-1, *[1] * (result.ndim - 2))
        if op.kind == "mean_pool" and pads_with_zeros(op):
            return result.masked_fill(result != 0, nan)  # a mean with zeros among it
        return result


def _alike(channels: Tensor) -> Tensor:
    """Return the value of each channel (channels, positions), nan unless all positions have it."""
    low, high = channels.amin(1), channels.amax(1)
    return torch.where(high - low <= ROUNDING * high.abs(), low, nan)


def _random(op: Operation) -> bool:
    training = {"dropout": 2, "stochastic_depth": 3}.get(op.name)
    return training is not None and bool(op.argument(training, "training", True))
