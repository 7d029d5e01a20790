"""The small language model that all of notebook 13 cuts up, and when two results are equal."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn

from labkit.models import Transformer, next_token_loss, transformer
from labkit.plan.splits import TransformerSize

Pair: TypeAlias = tuple[Tensor, Tensor]
"""Tokens, and the tokens that come next: int64 (sequences, context) both."""
Result: TypeAlias = tuple[float, Mapping[str, Tensor]]
"""Loss, and the gradient of each parameter by its name."""

TOLERANCE = 1e-5


def build(size: TransformerSize, seed: int = 0) -> Transformer:
    """Return the same transformer on each rank."""
    torch.manual_seed(seed)
    return transformer(size.vocabulary, size.width, size.depth, size.heads, size.context)


def backward(model: nn.Module, batch: Pair) -> Tensor:
    """Return the loss of a batch, whose gradients have been added."""
    loss = next_token_loss(model(batch[0]), batch[1])
    torch.autograd.backward(loss)
    return loss


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Return the gradients that there are, by name."""
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def alone(size: TransformerSize, batch: Pair) -> Result:
    """Return what one process finds: what every split must reproduce."""
    model = build(size)
    return backward(model, batch).item(), gradients(model)


def my_part(batch: Pair) -> Pair:
    """Return this rank's sequences of a batch that all ranks have."""
    inputs, targets = (t.chunk(dist.get_world_size())[dist.get_rank()] for t in batch)
    return inputs, targets


def joined(results: Sequence[Result]) -> Result:
    """Return the loss, and the gradients of all stages of a pipeline as of one model."""
    return results[0][0], {name: g for _, mine in results for name, g in mine.items()}


def equal(result: Result, expected: Result) -> bool:
    """Say whether loss and gradients are equal to 1e-5, relative to the loss or largest gradient.

    A sum in another order differs in the last bits, so bit for bit would ask for too much.
    """
    (loss, found), (right_loss, right) = result, expected
    bound = TOLERANCE * max(float(g.abs().max()) for g in right.values())
    return (
        abs(loss - right_loss) <= TOLERANCE * abs(right_loss)
        and found.keys() == right.keys()
        and all(found[name].shape == g.shape for name, g in right.items())
        and all(float((found[name] - g).abs().max()) <= bound for name, g in right.items())
    )
