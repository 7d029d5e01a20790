"""What a pruned model must be compared with before anything is said of the pruning.

A small model that does well proves little: perhaps any model of its size does. So train one of the
same shape from new weights (`renewed`; Liu et al., "Rethinking the Value of Network Pruning", 2019,
found it as good in many cases). And if a certain choice of weights is said to matter, choose as
many at random (`shuffled`; the control of Frankle and Carbin, "The Lottery Ticket Hypothesis",
2019).
"""

import torch
from torch import nn

from labkit.compression.checks import check_own_weights, copied
from labkit.compression.prune.masks import Masks


def shuffled(masks: Masks, seed: int = 0) -> Masks:
    """Return masks that keep as many weights of each tensor, at random places."""
    generator = torch.Generator().manual_seed(seed)
    orders = {n: torch.randperm(mask.numel(), generator=generator) for n, mask in masks.items()}
    return {n: mask.flatten()[orders[n]].view_as(mask) for n, mask in masks.items()}


def renewed(model: nn.Module) -> nn.Module:
    """Return a copy of the model with new random weights and fresh statistics.

    Each layer's own `reset_parameters` draws them, from torch's global generator; what a model's
    constructor did to them afterwards is not repeated.

    Raises:
        ValueError: a module holds parameters that it cannot draw anew, or computes a weight.
    """
    check_own_weights(model)  # what a layer draws anew would be computed away again
    fresh = copied(model)
    for name, module in fresh.named_modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()
        elif any(True for _ in module.parameters(recurse=False)):
            raise ValueError(
                f"model cannot be renewed: {name or 'it'} ({type(module).__name__}) has "
                "parameters, but no reset_parameters"
            )
    return fresh
