"""Weights in 2 to 8 bits, activations in float: a smaller model, not a faster one.

Most of a model's bytes are weights. Stored as integers with a scale for each output channel, they
take a quarter (8 bits) or an eighth (4 bits). Each forward pass turns them back into floats, which
costs time: it pays where reading the weights is what takes long, as in a large language model that
makes one token at a time, and there only with kernels that do both at once (torchao's `quantize_`
has some). Here the point is memory, the file, and what few bits do to accuracy.

With 4 bits one large weight makes the steps of its whole channel wide. A scale for each group of,
say, 32 input weights keeps the damage in the group, for one more bit a weight (32 bits by 32).

Linear and convolution layers and the projections of nn.MultiheadAttention are stored so. Biases,
norms, embeddings, recurrent and transposed layers stay float.

Source: Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018, for
scales by channel.
"""

from collections.abc import Iterable
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized, register_parametrization

from labkit.checks import check_positive_int
from labkit.compression.checks import REMEDY, copied
from labkit.compression.quantize.affine import grid_of, integer_range, to_integers

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def weights(
    model: nn.Module, bits: int = 8, group: int | None = None, keep_float: Iterable[str] = ()
) -> nn.Module:
    """Return a copy of the model whose weights are stored as integers, and only so.

    Its `state_dict` holds, in the place of a weight, the packed integers (uint8, `bits` bits each)
    and the scales (float32). Another model quantized the same way loads it. Symmetric, from the
    smallest to the largest weight of each channel or group. Only biases and norms can be trained.

    Args:
        model: weights in float32; left untouched.
        bits: 2 to 8.
        group: input weights (along inputs, height, width) that share a scale; the last group of a
            channel may be shorter. None: all inputs of an output channel.
        keep_float: names of layers to leave as they are.

    Raises:
        TypeError: `model` is not a module, or `keep_float` is a single string.
        ValueError: bits or group out of range; an unknown name; a model without such layers; a
            weight that is shared, parametrized already, not float32 or not finite.
    """
    check_bits_and_group(bits, group)
    smaller = copied(model)
    for layer, name in quantizable(smaller, keep_float).values():
        store(layer, name, bits, group)
    return smaller


class PackedWeight(nn.Module):
    """The parametrization of one weight: packed integers and scales in, float weight out.

    Args:
        bits, group: as in `weights`.
        shape: of the weight, (outputs, inputs, …).
    """

    def __init__(self, bits: int, group: int | None, shape: torch.Size) -> None:
        super().__init__()
        self.bits, self.group, self.shape = bits, group, shape

    def forward(self, packed: Tensor, scale: Tensor) -> Tensor:
        """Return the weight, in the dtype of `scale` (outputs, groups)."""
        integers = unpack(packed, self.bits, prod(self.shape)).view(self.shape)
        # zero points are zero, so a weight is its integer times the scale of its row
        rows = grouped(integers, self.group).to(scale.dtype)
        return ungrouped(rows * scale.view(-1, 1), self.shape)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return what stores `weight`: also what an assignment to the layer's weight does."""
        rows = grouped(weight, self.group)
        grid = grid_of(rows, self.bits, symmetric=True, dim=0)
        integers = ungrouped(to_integers(rows, grid), self.shape)
        return pack(integers, self.bits), grid.scale.view(len(weight), -1)

    def extra_repr(self) -> str:
        """Return the settings, for `print(model)`."""
        return f"bits={self.bits}, group={self.group}"


def store(layer: nn.Module, name: str, bits: int, group: int | None) -> None:
    """Replace the float parameter `name` of the layer itself by packed integers."""
    weight = getattr(layer, name).detach()
    delattr(layer, name)  # a parameter and a buffer cannot share a name
    layer.register_buffer(name, weight)  # integers cannot be parameters: they have no gradient
    register_parametrization(layer, name, PackedWeight(bits, group, weight.shape))


def quantizable(
    model: nn.Module, keep_float: Iterable[str] = ()
) -> dict[str, tuple[nn.Module, str]]:
    """Return, for each weight to quantize, its name -> (the layer, the parameter's name in it).

    Raises:
        TypeError, ValueError: see `weights`.
    """
    if isinstance(keep_float, str):
        raise TypeError(f"keep_float must be a collection of names, got the string {keep_float!r}")
    layers = {n: m for n, m in model.named_modules() if _weight_names(m)}
    kept = set(keep_float)  # may be a generator, which can be read once
    if unknown := sorted(map(str, kept - set(layers))):
        raise ValueError(f"keep_float names no layer of the model: {', '.join(unknown)}")
    found = {
        f"{path}.{name}".lstrip("."): (layer, name)
        for path, layer in layers.items()
        if path not in kept
        for name in _weight_names(layer)
    }
    if not found:
        raise ValueError("model has no linear or convolution layer: there is nothing to quantize")
    _check_weights(model, found)
    return found


def check_bits_and_group(bits: int, group: int | None) -> None:
    """Raise a ValueError unless bits are 2 to 8 and the group a positive number or None."""
    integer_range(bits, symmetric=True)
    if group is not None:
        check_positive_int("group", group)


def grouped(weight: Tensor, group: int | None) -> Tensor:
    """Return (outputs, inputs, …) as rows (outputs x groups, group), the last filled with zeros."""
    flat = weight.flatten(1)
    # A group wider than the layer would store nothing but padding.
    group = flat.shape[1] if group is None else min(group, flat.shape[1])
    missing = -flat.shape[1] % group
    return (F.pad(flat, (0, missing)) if missing else flat).reshape(-1, group)


def ungrouped(rows: Tensor, shape: torch.Size) -> Tensor:
    """Undo `grouped`: without the zeros that filled the last group, in the weight's shape."""
    return rows.reshape(shape[0], -1)[:, : prod(shape[1:])].reshape(shape)


def pack(integers: Tensor, bits: int) -> Tensor:
    """Return uint8 (bits x ceil(n / 8),): the lowest `bits` bits of each number, without a gap.

    Eight numbers make a word of `bits` bytes, so that any number of bits comes out even.
    """
    numbers = integers.flatten().long() & (2**bits - 1)  # the sign is the highest bit kept
    numbers = F.pad(numbers, (0, -len(numbers) % 8)).view(-1, 8)
    # No two numbers of a word share a bit, so adding them is writing them side by side.
    words = (numbers << bits * _count(8, numbers)).sum(1, keepdim=True)
    # The word's lowest byte first, whatever the processor's own order is: a file moves.
    return (words >> 8 * _count(bits, words)).to(torch.uint8).flatten()


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """Return the first `count` signed integers, int8 (count,), that `pack` was given."""
    # Runs in every forward pass, so few and small tensors count. With 2, 4 or 8 bits no number
    # crosses a byte, and a byte can be the word, instead of 64 bits for each eight numbers.
    if 8 % bits == 0:
        words, top = packed.view(torch.int8)[:, None], 8
    else:
        numbers = packed.view(-1, bits).long()
        words, top = (numbers << 8 * _count(bits, packed)).sum(1, keepdim=True), 64
    shifts = (top - bits - bits * _count(8 // bits if top == 8 else 8, packed)).to(words.dtype)
    # Up to the top of the word, which cuts off what lies above, and down again: a shift to the
    # right repeats the highest bit, so the sign of `bits` bits becomes the sign of the word.
    return (words << shifts >> top - bits).to(torch.int8).flatten()[:count]


def _count(end: int, like: Tensor) -> Tensor:
    return torch.arange(end, device=like.device)


def _weight_names(layer: nn.Module) -> tuple[str, ...]:
    """Which attributes of this very layer are weights to quantize."""
    if isinstance(layer, LAYERS):
        return ("weight",)
    if isinstance(layer, nn.MultiheadAttention):
        return tuple(name for name in PROJECTIONS if getattr(layer, name, None) is not None)
    return ()


def _check_weights(model: nn.Module, found: dict[str, tuple[nn.Module, str]]) -> None:
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    for full, (layer, name) in found.items():
        if is_parametrized(layer):
            raise ValueError(
                f"{full} is parametrized already: finish what trains or stores it, or keep it float"
            )
        weight = getattr(layer, name)
        if id(weight) not in owners:
            raise ValueError(f"{full} is computed from others: {REMEDY}")
        # One layer under two names is fine; two layers with one tensor would each round their own.
        places = owners[id(weight)]
        if len({id(model.get_submodule(p.rpartition(".")[0])) for p in places}) > 1:
            raise ValueError(
                f"{' and '.join(places)} are one tensor: quantizing would part them; "
                "name the layer in keep_float, or give it a weight of its own"
            )
        if weight.dtype != torch.float32 or not weight.isfinite().all():
            raise ValueError(f"{full} must be float32 and finite, got {weight.dtype} or infinity")
