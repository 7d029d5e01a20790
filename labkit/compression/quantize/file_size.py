"""How large a quantized model's file will be, from shapes alone, before anything is quantized.

A weight of n numbers takes n x bits / 8 bytes and a float32 scale for each output channel, or for
each group of its inputs; the rest takes 4 bytes a number as before. A static model has its batch
norms folded into the convolutions before them: a bias is all that is left of them.

This is what the tensors take, exactly. The file adds a header: a hundred bytes a tensor for name,
type and shape, and scale and zero point of each activation, some 25 bytes each.
"""

import copy
import tempfile
from collections.abc import Collection
from math import ceil, prod
from pathlib import Path

import torch
from torch import fx, nn

from labkit.compression.quantize.exported import STATIC_LAYERS
from labkit.compression.quantize.files import save
from labkit.compression.quantize.weight_only import (
    check_bits_and_group,
    quantizable,
)

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def predicted_bytes(
    model: nn.Module, bits: int = 8, group: int | None = None, static: bool = False
) -> int:
    """Return the bytes of all tensors in the file that `save` will write.

    Args:
        model: the float model.
        bits, group: of `weights`.
        static: predict the file of `static` instead, which has 8 bits and no groups.

    Raises:
        TypeError: `model` is not a module.
        ValueError: bits or group out of range, or not those of a static model; a model without
            layers to quantize; a static model whose batch norms torch.fx cannot find.
    """
    check_bits_and_group(bits, group)
    if static and (bits, group) != (8, None):
        raise ValueError(f"a static model has 8 bits and no groups, got {bits} and {group}")
    weights = quantizable(model)
    if static:
        weights = {name: w for name, w in weights.items() if not isinstance(w[0], nn.Conv3d)}
    gone, biases = _folded(model) if static else (set(), 0)
    total = 4 * biases
    for name, tensor in model.state_dict().items():
        if name in weights:
            total += _weight_bytes(tensor.shape, bits, group)
        elif name not in gone:
            total += tensor.numel() * tensor.element_size()
    return total


def file_bytes(model: nn.Module) -> int:
    """Return the bytes of the safetensors file that a model makes as it is, float or quantized."""
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        try:
            save(model, file)
        except TypeError:  # a float model
            save_file({n: t.contiguous() for n, t in model.state_dict().items()}, file)
        return file.stat().st_size


def header_bytes(file: Path) -> int:
    """Return the bytes that names, shapes and ranges take in a safetensors file.

    All the rest are tensors. The header's length is written in the first eight bytes.
    """
    with file.open("rb") as opened:
        return 8 + int.from_bytes(opened.read(8), "little")


def _weight_bytes(shape: torch.Size, bits: int, group: int | None) -> int:
    inputs = prod(shape[1:])
    groups = ceil(inputs / min(group or inputs, inputs))
    return bits * ceil(shape.numel() / 8) + 4 * shape[0] * groups


def _folded(model: nn.Module) -> tuple[set[str], int]:
    """The tensors of batch norms that vanish, and how many bias values come to be instead."""
    norms = {name: module for name, module in model.named_modules() if isinstance(module, NORMS)}
    gone = {f"{name}.num_batches_tracked" for name in norms}
    biases = 0
    for name, layer in _before(model, norms).items():
        gone |= {f"{name}.{tensor}" for tensor in norms[name].state_dict()}
        biases += len(layer.weight) if layer.bias is None else 0
    return gone, biases


def _before(model: nn.Module, norms: Collection[str]) -> dict[str, nn.Module]:
    """For each norm that alone reads a convolution or linear layer, that layer."""
    if not norms:
        return {}
    model = copy.deepcopy(model).eval()
    modules = dict(model.named_modules())
    try:
        graph = fx.Tracer().trace(model)
    except Exception as error:  # whatever the model's own code raised when it met a stand-in
        raise ValueError(
            f"{type(model).__name__} cannot be traced by torch.fx to find its batch norms: {error}"
        ) from error
    found: dict[str, nn.Module] = {}
    for node in graph.nodes:
        if node.op == "call_module" and node.target in norms:
            read = node.args[0]
            layer = modules.get(str(read.target)) if read.op == "call_module" else None
            if isinstance(layer, STATIC_LAYERS) and len(read.users) == 1:
                found[str(node.target)] = layer
    return found
