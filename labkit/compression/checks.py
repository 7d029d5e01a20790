"""Errors of arguments that many ways of compression take."""

import copy
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

Model = TypeVar("Model", bound=nn.Module)
REMEDY = (
    "make it a weight of the layer's own first, with torch.nn.utils.prune.remove, "
    "remove_weight_norm, remove_spectral_norm or parametrize.remove_parametrizations"
)


def check_own_weights(model: nn.Module) -> None:
    """Raise a ValueError that names a layer whose weight is computed anew in each forward pass.

    Whoever changed such a weight would see the change undone: masks and weight norm of
    `torch.nn.utils` keep the real parameters elsewhere.
    """
    for path, module in model.named_modules():
        hooked = [
            n[: -len(end)] for end in ("_orig", "_g") for n in module._parameters if n.endswith(end)
        ]
        computed = [name for name in hooked if isinstance(vars(module).get(name), Tensor)]
        if is_parametrized(module):
            computed += module.parametrizations
        for name in computed:
            raise ValueError(f"{f'{path}.{name}'.lstrip('.')} is computed from others: {REMEDY}")


def copied(model: Model) -> Model:
    """Return a deep copy.

    Raises:
        TypeError: `model` is not a module.
        ValueError: it cannot be copied; names the weight that stands in the way.
    """
    try:
        return copy.deepcopy(model)
    except Exception as error:  # of whatever the model holds: locks, files, tensors with a history
        check_own_weights(model)
        raise ValueError(f"model cannot be copied ({type(error).__name__}: {error})") from error
