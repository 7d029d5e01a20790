"""The module that runs a quantized model: called like the float one, and it cannot be changed."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn

from labkit.compression.agreement import decibels
from labkit.compression.quantize.exported import Reference, any_batch, check_same, explained
from labkit.compression.quantize.lowering import int8_kernels, lower, weight_bits
from labkit.compression.quantize.rounding import round_in_pieces

KERNELS = 40.0  # decibels that kernels have against the graph they stand for, or better


@dataclass(frozen=True, eq=False)
class _Graphs:
    """What an Int8Model runs. Not a module, so that `train()` and `state_dict()` do not enter it.

    Copies share it, as nothing in it ever changes.
    """

    reference: Reference
    lowered: fx.GraphModule

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Graphs":
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "an int8 model cannot be pickled, as its weights are packed for this processor: "
            "save it with quantize.save"
        )


class Int8Model(nn.Module):
    """A quantized model for any batch size, memory format kept.

    It cannot be trained: it has no parameters, outputs have no gradient, `train()` and `eval()` set
    the flag and change nothing else.

    Args:
        reference: the quantized model before lowering.
        answers: of the float model to the reference's inputs; the kernels are held against them.

    Attributes:
        reference: the same; its graph says what the kernels compute.
        graph: what runs: int8 kernels, or the reference's operations where there are none.

    Raises:
        ValueError: the graph cannot be lowered, or is another function afterwards.
    """

    def __init__(self, reference: Reference, answers: Tensor | None = None) -> None:
        super().__init__()
        inputs = reference.inputs
        if int8_kernels():
            with torch.no_grad(), explained(f"{reference.architecture} cannot run in int8 kernels"):
                graph = lower(reference.graph, inputs, any_batch(inputs))
        else:  # another graph over the same weights
            graph = fx.GraphModule(reference.graph, copy.deepcopy(reference.graph.graph))
        round_in_pieces(graph)
        if answers is not None:
            _check_kernels(reference, graph, answers)
        self._takes = _signature(inputs)
        self._graphs = _Graphs(reference, graph)
        self.eval()

    @property
    def reference(self) -> Reference:
        """The model before lowering."""
        return self._graphs.reference

    @property
    def graph(self) -> fx.GraphModule:
        """The operations that run."""
        return self._graphs.lowered

    @torch.no_grad()
    def forward(self, *inputs: Tensor) -> Tensor:
        """Return what the float model would, but for the rounding.

        Raises:
            ValueError: inputs of another number, shape (but for the batch) or dtype than those that
                the model was quantized with.
        """
        if (given := _signature(inputs)) != self._takes:
            raise ValueError(f"inputs must be {_said(self._takes)}, got {_said(given)}")
        output: Tensor = self.graph(*inputs)
        return output

    def extra_repr(self) -> str:
        """Return what it is made of, for `print(model)`."""
        kernels = int8_kernels() or "no int8 kernels"
        few = f", weights in {bits} bits" if (bits := weight_bits()) < 8 else ""
        return f"{self.reference.kind} int8 {self.reference.architecture}, {kernels}{few}"


@torch.no_grad()
def _check_kernels(reference: Reference, graph: fx.GraphModule, answers: Tensor) -> None:
    """Hold the kernels against the reference: their distance must be less than the rounding's own.

    Sums in another order flip some roundings, and a deep network can make much of a flip. It makes
    as much of the rounding itself, so what that did to the answers is the measure.
    """
    rounded = reference.graph(*reference.inputs)
    if rounded.is_floating_point():  # not the number of a class, say
        enough = min(KERNELS, decibels(answers, rounded))
        check_same(
            f"{reference.architecture} in int8 kernels", rounded, graph(*reference.inputs), enough
        )


def _signature(inputs: Sequence[Tensor]) -> list[tuple[torch.Size, torch.dtype]]:
    return [(x.shape[1:], x.dtype) for x in inputs]


def _said(signature: list[tuple[torch.Size, torch.dtype]]) -> str:
    return " and ".join(f"{dtype} {('batch', *shape)}" for shape, dtype in signature)
