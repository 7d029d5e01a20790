"""Notebook 14: what its results mean."""

from collections.abc import Mapping
from math import isinf
from typing import NamedTuple

import torch
from torch import Tensor, nn

from labkit.compare import FORWARD_TIME, Verdict
from labkit.compression import prune
from labkit.compression.prune.choice import Keep
from labkit.lessons.lesson import Prediction
from labkit.lessons.memory import give_back_memory
from labkit.lessons.prose import Prose
from labkit.lessons.pruning.outcomes import points_lost
from labkit.measure import Timing, flops, paired_ratio, peak_memory
from labkit.table import Table
from labkit.training import Recipe

POINT = 0.01
"""What may be lost to be called "as good": a percentage point."""


EQUAL = 1e-5
"""Of the largest output: what rounding may do."""
GAINED = 0.85
"""Share of the operations' ratio that the time's must reach to say that it follows."""
SURE = 1.2
"""An interval of speed that ends below this shows that nothing worth having was gained."""
VECTOR = 8
"""Channels that the narrower vector units work on at once."""


class Pruned(NamedTuple):
    """A pruned model: share of right answers (0 to 1), bytes after compression."""

    accuracy: float
    bytes: int


def pruned(model: nn.Module, recipe: Recipe) -> Pruned:
    """Return accuracy and compressed size of a model."""
    give_back_memory()  # of its training
    return Pruned(recipe.evaluate(model), prune.compressed_bytes(model))


def read_masks(times: Mapping[str, Timing], guess: Prediction) -> Prose:
    """Return whether zeros made the forward pass faster.

    Args:
        times: the dense model's first.
        guess: of how many times faster the second one is.
    """
    dense, *others = times
    verdicts = [
        Verdict(name, dense, FORWARD_TIME, paired_ratio(times[dense].seconds, times[name].seconds))
        for name in others
    ]
    lines = [f"- {verdict}" for verdict in verdicts]
    calls = {verdict.call for verdict in verdicts}
    if isinf(verdicts[0].estimate.high):
        meaning = "Timed too few times to be sure: run a longer profile."
    elif "better" in calls:
        meaning = "Zeros do save time here: some kernel of this machine skips them."
    else:
        sure = max(verdict.estimate.high for verdict in verdicts) < SURE
        meaning = f"**{'No faster' if sure else 'No gain can be shown in this noise'}.** "
        meaning += "A dense kernel multiplies by zero as fast as by anything else."
    guessed = guess.against(verdicts[0].estimate)
    return Prose("\n".join([*lines, "", meaning, "", guessed]))


def read_sparse(found: Mapping[float, Mapping[str, Pruned]], whole: Pruned) -> Prose:
    """Return how sparse the model may be, and what that does to its file.

    Args:
        found: {sparsity: {way of pruning: result}}.
        whole: the model with all its weights, trained as long.
    """
    lines = []
    for way in next(iter(found.values())):
        good = [s for s, of_way in found.items() if of_way[way].accuracy >= whole.accuracy - POINT]
        reach = f"up to **{max(good):.0%}** zeros" if good else "**at none of these sparsities**"
        lines.append(f"- {way}: within a point of the whole model {reach}")
    most, ways = max(found.items())
    best = max(ways, key=lambda way: ways[way].accuracy)
    lines.append(
        f"\nThe dense file compresses to {whole.bytes / 1e3:,.0f} kB; with {most:.0%} zeros "
        f"({best}) to {ways[best].bytes / 1e3:,.0f} kB: "
        f"**{whole.bytes / ways[best].bytes:.1f} times smaller**, with "
        f"{points_lost(whole.accuracy - ways[best].accuracy)}."
    )
    return Prose("\n".join(lines))


def read_two_of_four(whole: float, cut: float, tuned: float) -> Prose:
    """Return what 2:4 does to the accuracy (shares, 0 to 1)."""
    return Prose(
        f"Half of the weights gone in this pattern: {points_lost(whole - cut)} at once, "
        f"{points_lost(whole - tuned)} after fine-tuning. It was computed with the same dense "
        "kernels as before, so no speed is claimed."
    )


def groups_table(graph: prune.ChannelGraph) -> Table:
    """Return the groups of channels, and the layers that make them."""
    rows = [
        (name, str(len(group.units)), ", ".join(group.layers))
        for name, group in graph.groups.items()
    ]
    rows += [(layer, "–", f"stays: {why}") for layer, why in graph.kept.items()]
    return Table(("group", "channels", "layers that make them"), tuple(rows))


def criteria_table(whole: float, cut: Mapping[str, tuple[Keep, float, float]]) -> Table:
    """Return what each criterion keeps and loses.

    Args:
        whole: accuracy of the whole model, trained as long.
        cut: {criterion: (choice, accuracy at once, accuracy fine-tuned)}.
    """
    head = ("criterion", "channels kept in each group", "at once %", "fine-tuned %", "lost")
    rows = tuple(
        (
            name,
            ", ".join(str(int(chosen.sum())) for chosen in keep.values()),
            f"{100 * at_once:.1f}",
            f"{100 * tuned:.1f}",
            f"{100 * (whole - tuned):+.1f}",
        )
        for name, (keep, at_once, tuned) in cut.items()
    )
    return Table(head, rows, f"The whole model, trained as long: {100 * whole:.1f} %.")


def peak_bytes(keep: Keep, images: Tensor) -> int:
    """Return the peak of a forward pass of the conv net, from the numbers of channels.

    In a residual block its input is alive all the time. Beside it are, at the first norm, that
    norm's input and output; at the second norm, its input and output and what the first half gave;
    at the end, the result, the sum, and the ReLU of that. The input of the first block stays alive
    through the others, as an argument of the call that runs all of them.
    """
    kept = {name: int(chosen.sum()) for name, chosen in keep.items()}
    height, width = (size // 2 for size in images.shape[-2:])  # behind the stem
    first = entering = kept["stem"] * height * width
    held, peak = 0, 0
    for block, last in enumerate(("stem", "blocks.1.conv2", "blocks.2.conv2")):
        if block:  # with a stride of 2
            height, width, held = -(-height // 2), -(-width // 2), first
        inner, outer = (kept[n] * height * width for n in (f"blocks.{block}.conv1", last))
        peak = max(peak, held + entering + max(2 * inner, inner + 2 * outer, 3 * outer))
        entering = outer
    return len(images) * peak * images.element_size()


@torch.no_grad()
def size_table(
    graph: prune.ChannelGraph, keep: Keep, models: tuple[nn.Module, nn.Module], images: Tensor
) -> Table:
    """Return what was predicted of the smaller model and what is measured.

    Args:
        keep: the choice.
        models: the whole model and the smaller one, in evaluation mode.
        images: a batch, for the memory; the operations are those of one image.
    """
    predicted = prune.predict_size(graph, keep)
    foretold = [predicted.parameters, predicted.flops, predicted.bytes, peak_bytes(keep, images)]
    names = ("parameters", "operations an image", "bytes of all tensors", "peak bytes of a batch")
    whole, smaller = ([*_measured(model, images)] for model in models)
    rows = tuple(
        (name, f"{before:,}", f"{said:,}", f"{after:,}", f"{after / before:.0%}")
        for name, before, said, after in zip(names, whole, foretold, smaller, strict=True)
    )
    return Table(("", "whole", "smaller: predicted", "smaller: measured", "left"), rows)


def _measured(model: nn.Module, images: Tensor) -> tuple[int, int, int, int]:
    parameters = sum(p.numel() for p in model.parameters())
    held = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    model(images)  # kernels are built at the first call
    peak = peak_memory(lambda: model(images), device=images.device)
    return parameters, flops(lambda: model(images[:1])), held, peak


def read_proof(difference: float, largest: float) -> Prose:
    """Return whether the smaller model answers as the masked one does.

    Args:
        difference: the largest of an output, between the two.
        largest: absolute value of an output.
    """
    share = difference / largest
    if share < EQUAL:
        word = "**the same function**: what differs is rounding"
    else:
        word = "**not the same function: this should not happen, please report it**"
    return Prose(
        f"Outputs of the smaller and of the masked model differ by {difference:.1e} at most, "
        f"{share:.0e} of the largest: {word}."
    )


def read_half(times: Mapping[str, Timing], operations: float) -> Prose:
    """Return how much of the saved operations is saved time.

    Args:
        times: of the whole model and of the smaller one.
        operations: those of the whole model / those of the smaller one.
    """
    whole, smaller = times.values()
    ratio = paired_ratio(whole.seconds, smaller.seconds)
    share = ratio.value / operations
    if isinf(ratio.high):
        meaning = "Timed too few times to be sure: run a longer profile."
    elif ratio.low <= 1:
        meaning = "**No gain can be shown here**: so small a model spends its time on calls."
    elif share >= GAINED:
        meaning = "**The time follows the operations.**"
    else:
        meaning = (
            "**The time follows the operations only in part**: reading and writing activations, "
            "norms and the calls themselves do not shrink with the square of the channels."
        )
    return Prose(
        f"{operations:.2f} times fewer operations, **{ratio:.2fx} faster**: {share:.0%} of what "
        f"the count promises. {meaning}"
    )


def read_widths(times: Mapping[int, Timing]) -> Prose:
    """Return what one channel too many costs, from the times of a convolution by channels."""
    ratios = {}
    for width in times:
        if width % VECTOR == 1 and width - 1 in times:
            just_fits = times[width - 1].seconds
            ratios[width] = paired_ratio(times[width].seconds, just_fits)
    worst = max(ratios, key=lambda width: (ratios[width].low, ratios[width].value))
    ratio, fair = ratios[worst], worst / (worst - 1)
    said = (
        f"{worst} channels take **{ratio:.2fx}** as long as {worst - 1}, for {fair:.2f}x the "
        "operations."
    )
    if isinf(ratio.high):
        return Prose(f"{said} Timed too few times to be sure: run a longer profile.")
    if ratio.low > fair + 0.02:
        return Prose(
            f"{said} **Steps show**: the last vector is nearly empty and costs what a full one "
            "does. Prune to multiples."
        )
    return Prose(f"{said} **No step can be shown here**: take any number of channels.")
