"""How long models take to answer the same inputs, in turn."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from labkit.measure.timing import Timing, interleave


@torch.no_grad()
def latencies(models: Mapping[str, nn.Module], inputs: Tensor, rounds: int) -> dict[str, Timing]:
    """Return the times of a forward pass of each model, interleaved on one thread.

    Args:
        models: on the device of `inputs`; they are put into evaluation mode, and stay there.
        inputs: a batch.
        rounds: samples for each model.

    Raises:
        ValueError: no models, or `rounds` out of range.
    """
    calls = {name: partial(model.eval(), inputs) for name, model in models.items()}
    return interleave(calls, rounds=rounds, device=inputs.device)
