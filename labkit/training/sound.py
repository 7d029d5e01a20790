"""What must hold in a step, or the weights are ruined: a loss to start from, and finite gradients.

A loss that is a number can have a gradient that is none: the root or the norm of 0 has an infinite
slope, and 0 times that is not a number. One such gradient makes a weight not a number, and the next
forward pass all others. So gradients are looked at before the optimizer sees them.
"""

from typing import Any

import torch
from torch import Tensor, nn


def check_loss(loss: object) -> None:
    """Refuse what no backward pass can start from.

    Raises:
        ValueError: it is not one number, or has no gradient.
    """
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"the task's loss must be a mean, one number in a tensor, got {got}")
    if not loss.requires_grad:
        raise ValueError("the task's loss has no gradient: is everything frozen, or detached?")


def bad_gradient(model: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """Return the name of a parameter whose gradient is not finite, or "" where all are.

    It waits for an accelerator: weights that are ruined cannot be given back a step later.
    """
    for device, gradients in _gradients(optimizer).items():
        # What loss scaling looks for overflows with: one pass over all of them, times 1.
        found, one = torch.zeros(1, device=device), torch.ones(1, device=device)
        torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, one)
        if found.item():
            names = {parameter: name for name, parameter in model.named_parameters()}
            for p in (p for group in optimizer.param_groups for p in group["params"]):
                if p.grad is not None and not _dense(p.grad).isfinite().all():
                    return names.get(getattr(p, "whole", p), "a parameter that is not the model's")
    return ""


def _gradients(optimizer: torch.optim.Optimizer) -> dict[torch.device, list[Tensor]]:
    found: dict[torch.device, list[Tensor]] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                found.setdefault(parameter.device, []).append(_dense(parameter.grad))
    return found


def _dense(gradient: Tensor) -> Tensor:
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def not_finite(training: Any, what: str, value: float, lr: float, advice: str) -> Exception:
    """Return the error that says what went wrong in which step, and what to try."""
    return FloatingPointError(
        f"{what} is {value} at step {training.index} (lr {lr:.4g}, precision "
        f"{training.precision.name}): {advice}; the weights are those before the step"
    )
