"""The last check: do two models that should be the same function give the same?

Rules can be wrong, or incomplete, where a model does what nobody thought of. So whoever hands out a
smaller model runs it once beside the model that it must equal, on random numbers of the example's
shape, and hands out nothing that differs. One input is no proof for all; but a wrong rule shows.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from labkit.training.evaluate import evaluation_mode


@torch.no_grad()
def agree(model: nn.Module, other: nn.Module, example: tuple[Tensor, ...]) -> bool:
    """Say whether the other model gives what `model` does, to half of its digits.

    False as well if it cannot run. Of a model that never gives the same twice, such as one whose
    dropout never rests, nothing can be said: True.

    Args:
        model, other: compared in evaluation mode, and given back as they were.
        example: inputs; only their shapes matter, and the values of those that are not float.
    """
    with evaluation_mode(model, other), torch.random.fork_rng(devices=[]):
        wanted = model(*_noise(model, example))
        try:
            same = _close(wanted, other(*_noise(model, example)))
        except Exception:  # whatever its own code raises: it is no such model
            same = False
        return same or not _close(wanted, model(*_noise(model, example)))


def _noise(model: nn.Module, example: tuple[Tensor, ...]) -> list[Tensor]:
    """Return inputs of the example's shape that hide nothing, where and as the model takes them."""
    generator, weight = torch.Generator().manual_seed(0), next(model.parameters())
    return [
        torch.rand(x.shape, generator=generator).to(weight) if x.is_floating_point()
        else x.clone().to(weight.device)
        for x in example
    ]  # fmt: skip


def _close(wanted: Any, got: Any) -> bool:
    pairs = list(zip(tree_leaves(wanted), tree_leaves(got), strict=True))
    return all(_near(a, b) for a, b in pairs if isinstance(a, Tensor))


def _near(wanted: Tensor, got: Tensor) -> bool:
    if wanted.shape != got.shape:
        return False
    if not wanted.is_floating_point():
        return torch.equal(wanted, got)
    size = wanted.nan_to_num().abs().max() if wanted.numel() else 0.0
    # A GPU may round the factors of a float32 product to ten bits.
    eps = max(torch.finfo(wanted.dtype).eps, 0.0 if wanted.device.type == "cpu" else 2**-10)
    allowed = float(eps**0.5 * size)
    return torch.allclose(got, wanted, rtol=0.0, atol=allowed, equal_nan=True)
