"""Which channels matter least? Three answers, cheapest first.

- Size of the weights (Li et al., "Pruning Filters for Efficient ConvNets", 2017; over all coupled
  layers as in Fang et al., "DepGraph", 2023). Needs no data. Sizes of different layers do not
  compare, so each group's scores are divided by their mean.
- Scale of the batch norm behind the channel (Liu et al., "Learning Efficient Convolutional Networks
  through Network Slimming", 2017). Needs no data, but says something only if the training pushed
  the scales towards zero.
- First-order Taylor expansion (Molchanov et al., "Importance Estimation for Neural Network
  Pruning", 2019): by how much the loss would change if the channel's readers saw zero instead. That
  is the sum of gradient times weight over the columns that read it. Needs labelled batches; it is
  the only one that knows the task, and its scores compare across layers.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from labkit.compression.prune.graph import ChannelGraph, Place
from labkit.training.task import Batch, Task, classify

Scores = dict[str, Tensor]


def magnitude_scores(graph: ChannelGraph, order: int = 2) -> Scores:
    """Return name of group -> size of the weights (units,) of each of its units.

    All rows and columns of linear and convolution weights that go with a unit are counted: their
    L1 norm (`order=1`) or L2 norm (`order=2`), divided by the mean of the group.

    Raises:
        ValueError: `order` is neither 1 nor 2.
    """
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order!r}")

    def size(place: Place, weight: Tensor) -> Tensor | None:
        return weight.abs() ** order if weight.ndim > 1 else None

    norms = {name: total ** (1 / order) for name, total in _sum(graph, size).items()}
    return {name: norm / norm.mean().clamp(min=1e-30) for name, norm in norms.items()}


def batch_norm_scores(graph: ChannelGraph) -> Scores:
    """Return name of group -> sum of |scale| over the batch norms of each unit (units,).

    A group without batch norm is left out, and so will not be pruned.

    Raises:
        ValueError: no group has a batch norm.
    """
    scales = {
        f"{name}.weight"
        for name, module in graph.model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine
    }
    found = [place for place in graph.places if place.tensor in scales]
    met = {int(unit) for place in found for unit in place.units}

    def scale(place: Place, weight: Tensor) -> Tensor | None:
        return weight.abs() if place.tensor in scales else None

    scores = {
        name: total
        for name, total in _sum(graph, scale).items()
        if set(graph.groups[name].units.tolist()) <= met
    }
    if not scores:
        raise ValueError("graph has no channels with a batch norm: take another criterion")
    return scores


def taylor_scores(
    graph: ChannelGraph,
    batches: Iterable[Batch],
    task: Task | None = None,
) -> Scores:
    """Return name of group -> estimated change of the loss, squared, for each unit (units,).

    The estimate of each batch is squared; the score is the mean over the batches. The model is in
    evaluation mode, as it will be when the channel is gone.

    Args:
        graph: of the model as it is now; its own copy of the model is differentiated.
        batches: what the task reads, on the model's device; a few hundred examples are enough.
        task: whose loss counts; classification by default.

    Raises:
        ValueError: `batches` is empty, or a batch does not fit the model or has no finite loss.
    """
    task = classify() if task is None else task
    model, total, seen = graph.model, {n: torch.zeros(()) for n in graph.groups}, 0
    tensors = dict(model.named_parameters())
    names = {place.tensor for place in graph.places if place.role == "reads"}
    for name in names:  # of the graph's own copy: what is frozen in training matters all the same
        tensors[name].requires_grad_(True)
    for batch in batches:
        with torch.enable_grad():
            value = _loss(task, model, batch, seen)
            found = torch.autograd.grad(value, [tensors[n] for n in names], allow_unused=True)
        gradients = dict(zip(names, found, strict=True))

        def change(
            place: Place, weight: Tensor, slopes: dict[str, Tensor] = gradients
        ) -> Tensor | None:
            slope = slopes.get(place.tensor) if place.role == "reads" else None
            return None if slope is None else slope * weight

        for name, estimate in _sum(graph, change).items():
            total[name] = total[name].to(estimate.device) + estimate**2
        seen += 1
    if seen == 0:
        raise ValueError("batches is empty: the Taylor criterion needs data")
    return {name: score / seen for name, score in total.items()}


def _loss(task: Task, model: nn.Module, batch: Batch, place: int) -> Tensor:
    try:
        value = task.loss(model, batch)
    except (IndexError, RuntimeError, ValueError) as error:
        raise ValueError(f"batch {place} does not fit the model: {error}") from error
    if not value.isfinite() or not value.requires_grad:
        why = "it does not depend on weights" if value.isfinite() else f"it is {value.item()}"
        raise ValueError(f"batch {place} has no loss to differentiate: {why}")
    return value


@torch.no_grad()
def _sum(graph: ChannelGraph, of: Callable[[Place, Tensor], Tensor | None]) -> Scores:
    """Sum `of(place, tensor)` over all that goes with a unit."""
    tensors = {**dict(graph.model.named_parameters()), **dict(graph.model.named_buffers())}
    device = next(iter(tensors.values())).device
    sums = torch.zeros(graph.count, device=device)
    for place in graph.places:
        values = of(place, tensors[place.tensor])
        if values is not None:
            others = [dim for dim in range(values.ndim) if dim != place.dim]
            line = values.sum(dim=others) if others else values
            sums.index_add_(0, place.units.to(device), line.float())
    return {name: sums[group.units.to(device)] for name, group in graph.groups.items()}
