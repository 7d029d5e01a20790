"""Quantization-aware training: the network learns with the weights that it will have.

Rounding a trained network to 4 bits moves all its weights at once, and accuracy falls. Here each
forward pass rounds them first, so the loss is that of the rounded network. The float weights behind
them stay and are what the optimizer moves: they add up steps too small to cross to the next
integer. Their gradient is taken straight through the rounding, as if it were not there.

    rounding = quantize.aware(model, bits=4)
    for step in train(rounding, batches, SGD(lr=0.01).build(rounding)):
        ...
    small = quantize.finish(rounding)  # the same outputs, to the bit

Start from a trained model; a twentieth of its learning rate, falling to zero over a tenth of its
training, does well. With 8 bits there is next to nothing to win. Only weights are rounded here;
activations stay float.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", 2017.
"""

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.utils.parametrize import (
    ParametrizationList,
    register_parametrization,
    type_before_parametrizations,
)

from labkit.compression.checks import copied
from labkit.compression.quantize.affine import grid_of, round_trip
from labkit.compression.quantize.weight_only import (
    check_bits_and_group,
    grouped,
    quantizable,
    store,
    ungrouped,
)


def aware(
    model: nn.Module, bits: int = 4, group: int | None = None, keep_float: Iterable[str] = ()
) -> nn.Module:
    """Return a copy of the model that rounds its weights in each forward pass; train it as usual.

    The range follows the weights as they move: each forward pass takes it anew, from the smallest
    to the largest, so that no weight lies outside and none is without a gradient.

    Args:
        model: weights in float32; left untouched.
        bits, group, keep_float: as in `weights`.

    Raises:
        TypeError, ValueError: as `weights`.
    """
    check_bits_and_group(bits, group)
    trained = copied(model)
    for layer, name in quantizable(trained, keep_float).values():
        register_parametrization(layer, name, RoundedWeight(bits, group))
    return trained


def finish(model: nn.Module) -> nn.Module:
    """Return what `weights` makes of the float weights behind a model that was trained so.

    Args:
        model: made by `aware`; left untouched.

    Raises:
        ValueError: the model rounds no weight.
    """
    finished = copied(model)
    rounding_layers = [layer for layer in finished.modules() if _rounded(layer)]
    if not rounding_layers:
        raise ValueError("model rounds no weight: make it with quantize.aware first")
    for layer in rounding_layers:
        rounded = _rounded(layer)
        # torch's remove_parametrizations would strip the class, which the given model shares
        layer.__class__ = type_before_parametrizations(layer)
        del layer.parametrizations
        for name, weight, rounding in rounded:
            layer.register_buffer(name, weight)
            store(layer, name, rounding.bits, rounding.group)
    return finished


class RoundedWeight(nn.Module):
    """The parametrization of one weight: float weight in, the weight after a round trip out."""

    def __init__(self, bits: int, group: int | None) -> None:
        super().__init__()
        self.bits, self.group = bits, group

    def forward(self, weight: Tensor) -> Tensor:
        """Return the rounded weight (outputs, inputs, …); its gradient goes straight through."""
        rows = grouped(weight, self.group)
        rounded = round_trip(rows, grid_of(rows, self.bits, symmetric=True, dim=0))
        return ungrouped(rounded, weight.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the float weight to keep: an assignment to the layer's weight sets it."""
        return weight

    def extra_repr(self) -> str:
        """Return the settings, for `print(model)`."""
        return f"bits={self.bits}, group={self.group}"


def _rounded(layer: nn.Module) -> list[tuple[str, Tensor, RoundedWeight]]:
    """The layer's own weights that are rounded: name, float weight, how."""
    found = []
    for name, steps in getattr(layer, "parametrizations", {}).items():
        if isinstance(steps, ParametrizationList) and isinstance(steps[0], RoundedWeight):
            found.append((name, steps.original, steps[0]))
    return found
