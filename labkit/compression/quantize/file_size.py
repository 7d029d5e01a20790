"""How large a quantized model's file will be, from shapes alone, before anything is quantized.

A weight of n numbers takes n x bits / 8 bytes and a float32 scale for each output channel, or for
each group of its inputs; the rest takes 4 bytes a number as before. A static model has its batch
norms folded into the convolutions before them: a bias is all that is left of them. It has nothing
of what its forward pass does not call.

This is what the tensors take, exactly, but for small constants that `forward` makes on its way. The
file adds a header: a hundred bytes a tensor for name, type and shape, a checksum, and scale and
zero point of each activation, some 25 bytes each.
"""

import tempfile
from collections.abc import Iterable, Mapping
from math import ceil, prod
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from labkit.compression.checks import copied
from labkit.compression.quantize.exported import STATIC_LAYERS
from labkit.compression.quantize.files import save
from labkit.compression.quantize.weight_only import (
    check_bits_and_group,
    quantizable,
)

NORMS = (nn.modules.batchnorm._BatchNorm,)  # torch's and those made of it
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
FOLDABLE = (*STATIC_LAYERS, nn.Conv3d, *TRANSPOSED)
COUNTER = "num_batches_tracked"  # of a norm; only training reads it


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
    sizes = {
        name: _weight_bytes(tensor.shape, bits, group, packed=not static)
        if name in weights
        else tensor.nbytes
        for name, tensor in model.state_dict().items()
    }
    nodes = _calls(model) if static else None
    return sum(sizes.values()) if nodes is None else _called(model, nodes, sizes)


def file_bytes(model: nn.Module) -> int:
    """Return the bytes of the safetensors file that a model makes as it is, float or quantized."""
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        try:
            save(model, file)
        except TypeError:  # a float model
            save_file({n: t.clone().contiguous() for n, t in model.state_dict().items()}, file)
        return file.stat().st_size


def header_bytes(file: Path) -> int:
    """Return the bytes that names, shapes and ranges take in a safetensors file.

    All the rest are tensors. The header's length is written in the first eight bytes.
    """
    with file.open("rb") as opened:
        return 8 + int.from_bytes(opened.read(8), "little")


def _weight_bytes(shape: torch.Size, bits: int, group: int | None, packed: bool) -> int:
    inputs = prod(shape[1:])
    groups = ceil(inputs / min(group or inputs, inputs))
    numbers = bits * ceil(shape.numel() / 8) if packed else shape.numel()  # eight by eight
    return numbers + 4 * shape[0] * groups


def _called(model: nn.Module, nodes: Iterable[fx.Node], sizes: Mapping[str, int]) -> int:
    """The bytes that the calls of a forward pass leave in the graph.

    A norm that reads a layer vanishes into a copy of the layer, with a bias of its own. Only where
    something else reads the layer, too, is there one more, as it was.
    """
    modules, kept, folded = dict(model.named_modules()), set(), 0

    def called(node: Any) -> nn.Module | None:
        return modules.get(str(node.target)) if node.op == "call_module" else None

    for node in nodes:
        norms = [module for user in node.users if isinstance(module := called(user), NORMS)]
        if isinstance(called(node), FOLDABLE) and norms:
            weight = sizes[f"{node.target}.weight"]
            folded += sum(weight + 4 * norm.num_features for norm in norms)
            if len(norms) == len(node.users):
                continue
        read: Any = node.args[0] if isinstance(called(node), NORMS) else None
        if read is not None and isinstance(called(read), FOLDABLE):
            continue
        if node.op in ("call_module", "get_attr"):
            kept.add(str(node.target))
    tensors = {
        name: size
        for name, size in sizes.items()
        if any(f"{name}.".startswith(f"{place}.") for place in kept) and not name.endswith(COUNTER)
    }
    return folded + sum(tensors.values())


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        """Do not look into layers, not even into those of a subclass."""
        return isinstance(module, (*NORMS, *FOLDABLE)) or super().is_leaf_module(module, name)


def _calls(model: nn.Module) -> list[fx.Node] | None:
    """What a forward pass calls; None where torch.fx cannot tell, and no norm would vanish."""
    model = copied(model).eval()
    try:
        return list(_Tracer().trace(model).nodes)
    except Exception as error:  # whatever the model's own code raised when it met a stand-in
        if not any(isinstance(module, NORMS) for module in model.modules()):
            return None
        raise ValueError(
            f"{type(model).__name__} cannot be traced by torch.fx to find its batch norms: {error}"
        ) from error
