"""Notebook 14: the checks of its exercises."""

import torch
from torch import Tensor, nn

from labkit.compression.prune import ChannelGraph
from labkit.compression.prune.masks import Masks
from labkit.lessons.check import exercise, wrong_number

BITS = 32  # of a weight in fp32


@exercise(
    hint="Of 32 bits a weight, what is left: one bit for each, and 32 for those that are not zero.",
    praise="At such shares the map of what is where already costs a quarter of the file.",
)
def stored_ratio(answer: object) -> str | None:
    """Check how many times smaller a file is with a bit a weight and a tenth of the weights."""
    right = BITS / (1 + 0.1 * BITS)
    mistakes = {
        10: "Nobody could tell where the weights belong: count the bit that says so.",
        1 / right: "Upside down: how many times smaller?",
        BITS / (1 + 0.9 * BITS): "A tenth of the weights is stored; nine tenths are zero.",
    }
    too_far = "How many bits does a weight need on average?"
    return wrong_number(answer, right, 0.02, too_far, mistakes)


@exercise(
    hint="Which layers make channels of this group, and which read them? `graph.places` lists all; "
    "weights of convolutions have four dimensions.",
    praise="One channel, all these at once: that is why the graph is needed.",
)
def weights_touched(answer: object, graph: ChannelGraph) -> str | None:
    """Check how many convolutions lose a row or a column with one channel of the stem."""
    group, tensors = graph.groups["stem"], dict(graph.model.named_parameters())
    met = [
        place
        for place in graph.places
        if torch.isin(group.units, place.units).any() and place.tensor in tensors
    ]
    convolutions = {place.tensor for place in met if tensors[place.tensor].ndim == 4}
    makers = {place.tensor for place in met if place.role == "makes"}
    tensors_met = {place.tensor for place in met}
    mistakes = {
        len(makers): "So many make the channel. Others read it: they lose a column.",
        len(convolutions - makers): "So many read the channel. Others make it: they lose a row.",
        len(tensors_met): "That counts the batch norms too: only convolutions are asked for.",
    }
    too_far = "Count those that make it and that read it."
    return wrong_number(answer, len(convolutions), 0, too_far, mistakes)


@exercise(
    hint="`prune.masked(model, masks)` gives a copy. Of which model: before or after training?",
    praise="Weights, norms and biases are those of the start; the training only chose the mask.",
)
def ticket(answer: object, start: nn.Module, model: nn.Module, masks: Masks) -> str | None:
    """Check a model that has the starting weights where the masks leave any, and zeros elsewhere.

    Args:
        start: the model before its training.
        model: after it.
        masks: chosen from `model`.
    """
    if not isinstance(answer, nn.Module):
        return f"A model is wanted here, not {answer!r}."
    given, first = dict(answer.named_parameters()), dict(start.named_parameters())
    if {n: p.shape for n, p in given.items()} != {n: p.shape for n, p in first.items()}:
        return "That model has other layers than the one that was trained."
    if answer is start or answer is model:
        return "Take a copy: this one is needed as it was."
    if _masked(first, masks):
        return "`start` itself is masked. Run this cell again, with `prune.masked`: it copies."
    if any(given[name][~mask.to(given[name].device)].any() for name, mask in masks.items()):
        return "Weights that the masks remove are not zero."
    if _equal(given, dict(model.named_parameters()), masks):
        return "Those are the trained weights. Rewind to those before the training."
    if not _equal(given, first, masks):
        return "What the masks leave must be what it was before the training."
    return _wrong_buffers(dict(answer.named_buffers()), dict(start.named_buffers()))


def _masked(first: dict[str, nn.Parameter], masks: Masks) -> bool:
    """Say whether the start has zeros wherever the masks remove weights."""
    gone = [first[name][~mask.to(first[name].device)] for name, mask in masks.items()]
    return any(len(weights) for weights in gone) and not any(weights.any() for weights in gone)


def _wrong_buffers(given: dict[str, Tensor], first: dict[str, Tensor]) -> str | None:
    if given.keys() != first.keys():
        return "That model has other layers than the one that was trained."
    same = (torch.equal(t, first[name].to(t.device)) for name, t in given.items())
    if not all(same):
        return "The running statistics of its batch norms are not those before the training."
    return None


def _equal(some: dict[str, nn.Parameter], others: dict[str, nn.Parameter], masks: Masks) -> bool:
    """Say whether parameters are equal where the masks leave them."""
    for name, parameter in some.items():
        mask = masks.get(name, torch.ones_like(parameter, dtype=torch.bool)).to(parameter.device)
        if not torch.equal(parameter[mask], others[name].to(parameter.device)[mask]):
            return False
    return True
