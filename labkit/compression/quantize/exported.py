"""A model as a graph that torchao can annotate, from the trace to "quantize, dequantize" pairs.

torch.export turns a model into a graph of torch's basic operations. torchao folds batch norm into
the convolutions, marks convolutions and linear layers, and puts an observer before each; after
calibration the observers become pairs of "quantize, dequantize". The graph answers any batch size;
all else of the inputs' shape is fixed, as are the decisions that `forward` took.

What cannot be traced is refused: a forward that branches on the values of tensors, or one that
returns something else than one tensor.
"""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.symbolic_shapes import is_concrete_int

from labkit.compression.agreement import decibels
from labkit.compression.checks import check_own_weights, copied
from labkit.compression.quantize.lowering import weight_bits
from labkit.compression.quantize.rewriting import LAYERS, rewrite
from labkit.compression.quantize.torchao_import import pt2e

STATIC_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)
FEW = 32  # examples of the first batch that graphs are made and compared with
FOLDED = 60.0  # decibels; a fold rounds float32 in another order, which leaves 100 and more
Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Reference:
    """A quantized model before lowering: it computes in float, between roundings to integers.

    Args:
        graph: of "quantize, dequantize, compute".
        inputs: what it was exported with, some of the first batch.
        kind: "static" or "dynamic".
        architecture: class name of the float model.
        keep_float: names of the modules that were left in float.
        names: attribute of the graph -> a name made of the float model's own names.
        weight_bits: how many bits of int8 the weights use.
    """

    graph: fx.GraphModule
    inputs: Inputs
    kind: str
    architecture: str
    keep_float: tuple[str, ...]
    names: dict[str, str]
    weight_bits: int


def convert(
    model: nn.Module, batches: Iterable[Inputs], quantizer: Any, kind: str, keep: tuple[str, ...]
) -> tuple[Reference, Tensor]:
    """Export, observe over `batches` (at least one), and put the roundings in.

    Returns:
        The model before lowering, and what the float model answers to its `inputs`.

    Raises:
        ValueError: as `export`; torchao cannot quantize the graph, or folding its norms makes
            another function of it.
    """
    batches = iter(batches)  # may be a generator: what shows the shapes is calibrated on as well
    first, name = next(batches), type(model).__name__
    few = tuple(x[:FEW] for x in _two(first))
    graph = export(model, few)
    rewrite(graph)
    weights = _weights(graph)  # now, as folding and converting rename what they touch
    for module in keep:
        quantizer.set_module_name_qconfig(module, None)
    # torchao draws random examples for the patterns that it looks for
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        answers, unfolded = graph(*few), graph(*first)
        with explained(f"{name} cannot be quantized by torchao"):
            prepared = pt2e().prepare_pt2e(graph, quantizer)
        check_same(f"{name} with its norms folded", unfolded, prepared(*first), FOLDED)
        for inputs in batches:
            prepared(*inputs)
        _hide_norms(prepared)
        with explained(f"{name} cannot be quantized by torchao"):
            converted = pt2e().convert_pt2e(prepared)
    names = _names(converted, weights)
    if not any(stored.endswith(".int8") for stored in names.values()):
        layers = "linear layers" if kind == "dynamic" else "convolutions and linear layers"
        raise ValueError(f"{name} has no {layers} to quantize")
    return Reference(converted, few, kind, name, keep, names, weight_bits()), answers


def export(model: nn.Module, inputs: Inputs) -> fx.GraphModule:
    """Return the graph of a copy of the model in evaluation mode, for any batch size.

    Raises:
        TypeError: `model` is not a module.
        ValueError: the model is not float32 on the CPU, computes weights anew in each pass, cannot
            be traced, is tied to a batch size, or does not return one tensor.
    """
    model, name = copied(model).eval(), type(model).__name__
    check_own_weights(model)  # torchao would quantize some, leave others, and fold into none
    _check_dtype_and_device(model)
    with (
        explained(f"{name} cannot be traced by torch.export, which quantization needs"),
        warnings.catch_warnings(),  # of a Python that nobody can mend here
    ):
        warnings.filterwarnings("ignore", "Guards may run slower on Python 3.13.0")
        shapes = any_batch(inputs)
        program = torch.export.export(model, inputs, dynamic_shapes=shapes, strict=True)
    _check_program(program, name)
    graph: fx.GraphModule = program.module()
    return graph


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn whatever a library raises inside into a ValueError of one line that says what failed."""
    try:
        yield
    except Exception as error:  # torch raises many kinds, and forward may raise any
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"{what}: {reason}") from error


def check_same(what: str, wanted: Tensor, got: Tensor, enough: float) -> None:
    """Raise a ValueError unless two graphs of one function agree, in decibels.

    Looked at are the numbers that are finite: a mask may well hold infinities.
    """
    fine = wanted.isfinite()
    heard = decibels(wanted[fine], got[fine])
    if not heard >= enough:
        raise ValueError(
            f"{what} is another function: its answers to the first batch have {heard:.1f} dB "
            f"against those before, where {enough:.1f} are due"
        )


def any_batch(inputs: Inputs) -> Any:
    """Return the dynamic shapes by which the first dimension of each input may vary."""
    return tuple({0: torch.export.Dim.AUTO} for _ in inputs)


def check_keep_float(model: nn.Module, keep_float: Iterable[str]) -> tuple[str, ...]:
    """Return the names in order, each known to be that of a module.

    Raises:
        TypeError: `model` is not a module, or a single string.
        ValueError: a name that no module of the model has; the message lists those there are.
    """
    if isinstance(keep_float, str):
        raise TypeError(f"keep_float must be a collection of names, got the string {keep_float!r}")
    names = [name for name, _ in model.named_modules() if name]
    kept = set(keep_float)  # may be a generator, which can be read once
    if unknown := sorted(map(repr, kept - set(names))):
        raise ValueError(
            f"keep_float names no module of the model: {', '.join(unknown)}; "
            f"there are {', '.join(names)}"
        )
    return tuple(sorted(kept))


def _hide_norms(prepared: fx.GraphModule) -> None:
    """Call norms that were not folded by a name that torchao does not know.

    It would look for those of its training with rounding, for half a minute.
    """
    for node in prepared.graph.nodes:
        if node.target is torch.ops.aten.batch_norm.default:
            node.target = torch.batch_norm
    prepared.recompile()


def _two(inputs: Inputs) -> Inputs:
    """A batch of at least two, as torch.export takes a batch of one for a constant."""
    return tuple(torch.cat([x, x]) if len(x) == 1 else x for x in inputs)


def _weights(graph: fx.GraphModule) -> dict[str, str]:
    """The name of its weight in the float model for each convolution and linear layer."""
    return {
        node.name: str(node.args[1].target)
        for node in graph.graph.nodes
        if node.target in LAYERS and node.args[1].op == "get_attr"
    }


def _names(graph: fx.GraphModule, weights: dict[str, str]) -> dict[str, str]:
    """The names under which the tensors of the graph are stored.

    `stem.weight.int8` and `stem.weight.scale` are a quantized weight. Zero points are left out:
    those of weights are 0.
    """
    constants = [node for node in graph.graph.nodes if node.op == "get_attr"]
    names = {node.target: str(node.target) for node in constants}
    for node in graph.graph.nodes:
        if node.name not in weights:
            continue
        weight, bias = node.args[1], node.args[2] if len(node.args) > 2 else None
        name = weights[node.name]
        if weight.op == "call_function":  # a dequantization of (integers, scale, zero point)
            names[weight.args[0].target] = f"{name}.int8"
            names[weight.args[1].target] = f"{name}.scale"
            names.pop(weight.args[2].target, None)
        if isinstance(bias, fx.Node) and bias.op == "get_attr":  # may stem from a batch norm
            names[bias.target] = name.removesuffix("weight") + "bias"
    return names


def _check_dtype_and_device(model: nn.Module) -> None:
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.device.type != "cpu":
            raise ValueError(
                "model must be on the CPU: the int8 kernels are those of x86 processors, "
                f"got {name} on {tensor.device}"
            )
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ValueError(f"model must be in float32, got {name} in {tensor.dtype}")


def _check_program(program: torch.export.ExportedProgram, name: str) -> None:
    nodes = program.graph.find_nodes(op="output")
    outputs = nodes[0].args[0]
    one = program.call_spec.out_spec.num_nodes == 1 and isinstance(outputs[0], fx.Node)
    if not one or not isinstance(outputs[0].meta["val"], Tensor):
        raise ValueError(f"{name} must return one tensor to be quantized, got {outputs}")
    given = set(program.graph_signature.user_inputs)
    for node in program.graph.find_nodes(op="placeholder"):
        batch = node.meta["val"].shape[0] if node.name in given else None
        if batch is not None and is_concrete_int(batch):
            raise ValueError(
                f"{name} works for the batch size {batch} only: its forward must not take the "
                "batch size for a fixed number"
            )
