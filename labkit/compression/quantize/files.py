"""Quantized models as files: integers, scales, and what is needed to build the graph again.

A safetensors file holds the tensors (for a static model: int8 weights, their scales, biases and
whatever stayed float) and, in its header, a line of JSON: the kind of quantization, what was kept
in float, and scale and zero point of each activation. Like a `state_dict` it does not hold the
architecture: loading quantizes a float model of the same class with any weights, then puts the
stored numbers in their places. So the outputs are those of the saved model, bit for bit, on the
same processor with the same torch.

The kernels' packed weights are not stored: each processor packs its own. Where its kernels hold
weights of 7 bits only (see `lowering.weight_bits`), a file with 8 is rounded once more when it is
loaded. A SHA-256 over names, shapes and bytes makes sure that no bit has changed.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.parametrize import is_parametrized

from labkit.compression.quantize.dynamic_int8 import dynamic_quantizer
from labkit.compression.quantize.exported import Reference, convert
from labkit.compression.quantize.int8_model import Int8Model
from labkit.compression.quantize.lowering import weight_bits
from labkit.compression.quantize.static_int8 import static_quantizer
from labkit.compression.quantize.weight_only import LAYERS, PackedWeight, weights
from labkit.files import atomic_path

KEY, CHECKSUM = "labkit quantized", "sha256"
# by name, as torch has these operations only once torchao is imported
QUANTIZE = "quantized_decomposed.quantize_per_tensor.default"
DEQUANTIZE = "quantized_decomposed.dequantize_per_tensor.default"


def save(model: nn.Module, path: str | Path) -> None:
    """Write a model of `static`, `dynamic` or `weights`, whole or not at all.

    Raises:
        TypeError: another model.
        ValueError: a model whose state is not of tensors alone.
        OSError: the folder cannot be written or the disk is full; an older file stays as it was.
    """
    from safetensors import torch as safetensors

    if isinstance(model, Int8Model):
        tensors, about = _stored(model.reference), _about_graph(model.reference)
    else:
        tensors, about = model.state_dict(), _about_weights(model)
    if odd := [name for name, value in tensors.items() if not torch.is_tensor(value)]:
        raise ValueError(f"model keeps what is no tensor, which no file holds: {', '.join(odd)}")
    whole = {name: t.detach().clone().contiguous() for name, t in tensors.items()}
    told = json.dumps(about, separators=(",", ":"))
    # in memory first: safetensors writes under names of its own, which nobody would clear away
    content = safetensors.save(whole, {KEY: told, CHECKSUM: _checksum(whole, told)})
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(content)


def load(path: str | Path, model: nn.Module) -> nn.Module:
    """Return the quantized model that was saved.

    Args:
        path: of a file that `save` wrote.
        model: the float architecture it was made from, with any weights; left untouched.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, damaged, or of another architecture.
    """
    tensors, about = _read(Path(path))
    try:
        if about["kind"] == "weights":
            loaded = weights(model, about["bits"], about["group"], about["keep_float"])
            # not by load_state_dict: modules may ask for versions of their own, which no file has
            _overwrite(loaded.state_dict(), tensors)
            return loaded
        reference = _blank(model, about)
        if weight_bits() < about["weight_bits"]:
            _halve(tensors)
        _fill(reference, tensors, about["activations"])
    except ValueError as error:
        given = type(model).__name__
        raise ValueError(
            f"{path} holds a quantized {about['architecture']} that does not fit the {given} "
            f"given: {error}"
        ) from error
    return Int8Model(reference)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file: {error}") from error
    if KEY not in metadata:
        raise ValueError(f"{path} holds tensors, but was not written by quantize.save")
    if metadata.get(CHECKSUM) != _checksum(tensors, metadata[KEY]):
        raise ValueError(f"{path} is damaged: its content does not match its SHA-256")
    about: dict[str, Any] = json.loads(metadata[KEY])
    return tensors, about


def _checksum(tensors: dict[str, Tensor], about: str) -> str:
    """Of all that a file says: names, dtypes, shapes and bytes of its tensors, and the JSON."""
    digest = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _about_weights(model: nn.Module) -> dict[str, Any]:
    packed = [module for module in model.modules() if isinstance(module, PackedWeight)]
    if not packed:
        raise TypeError(
            "model must come from quantize.static, quantize.dynamic or quantize.weights, "
            f"got {type(model).__name__}"
        )
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, _QUANTIZABLE)]
    return {
        "kind": "weights",
        "architecture": type(model).__name__,
        "keep_float": [name for name, layer in layers if not is_parametrized(layer)],
        "bits": packed[0].bits,
        "group": packed[0].group,
    }


_QUANTIZABLE = (*LAYERS, nn.MultiheadAttention)


def _about_graph(reference: Reference) -> dict[str, Any]:
    return {
        "kind": reference.kind,
        "architecture": reference.architecture,
        "keep_float": reference.keep_float,
        "weight_bits": reference.weight_bits,
        "inputs": [[str(x.dtype).removeprefix("torch."), *x.shape[1:]] for x in reference.inputs],
        # nine digits tell any two numbers of float32 apart
        "activations": [
            [float(f"{node.args[1]:.9g}"), node.args[2]] for node in _roundings(reference.graph)
        ],
    }


def _blank(model: nn.Module, about: dict[str, Any]) -> Reference:
    """The model's own weights and no calibration, in the graph that is to be filled."""
    random, inputs = torch.Generator().manual_seed(0), []
    for dtype, *shape in about["inputs"]:  # 0 is the one whole number that any model takes
        floats = torch.randn(2, *shape, generator=random)
        kind = getattr(torch, dtype)
        inputs.append(
            floats.to(kind) if kind.is_floating_point else torch.zeros(2, *shape, dtype=kind)
        )
    quantizer = dynamic_quantizer() if about["kind"] == "dynamic" else static_quantizer("min-max")
    return convert(model, [tuple(inputs)], quantizer, about["kind"], tuple(about["keep_float"]))[0]


def _halve(tensors: dict[str, Tensor]) -> None:
    """Give weights of 8 bits 7, at twice the scale."""
    for name in [name for name in tensors if name.endswith(".int8")]:
        tensors[name] = (tensors[name] / 2).round().to(torch.int8)  # -64 ... 64
        scale = name.removesuffix(".int8") + ".scale"
        tensors[scale] = 2 * tensors[scale]


def _fill(reference: Reference, tensors: dict[str, Tensor], activations: list[Any]) -> None:
    _overwrite(_stored(reference), tensors)
    roundings = _roundings(reference.graph)
    if len(roundings) != len(activations):
        raise ValueError(f"it rounds {len(roundings)} activations, the file {len(activations)}")
    for node, (scale, zero_point) in zip(roundings, activations, strict=True):
        grid = (torch.tensor(scale, dtype=torch.float32).item(), zero_point)
        for place in (node, *node.users):
            if str(place.target) in (QUANTIZE, DEQUANTIZE):
                place.args = (place.args[0], *grid, *place.args[3:])
    reference.graph.recompile()


def _stored(reference: Reference) -> dict[str, Tensor]:
    return {name: _tensor(reference.graph, target) for target, name in reference.names.items()}


def _roundings(graph: fx.GraphModule) -> list[fx.Node]:
    return [node for node in graph.graph.nodes if str(node.target) == QUANTIZE]


def _tensor(graph: fx.GraphModule, target: str) -> Tensor:
    parent, _, name = target.rpartition(".")
    tensor: Tensor = getattr(graph.get_submodule(parent), name)
    return tensor


@torch.no_grad()
def _overwrite(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Put the numbers found into the tensors wanted, once it is known that all fit."""
    for name in sorted({*wanted, *found}):
        sizes = [
            f"{tuple(where[name].shape)} {where[name].dtype}" if name in where else "nothing"
            for where in (wanted, found)
        ]
        if sizes[0] != sizes[1]:
            raise ValueError(f"{name} should be {sizes[0]}, the file has {sizes[1]}")
    for name, tensor in wanted.items():
        tensor.copy_(found[name])
