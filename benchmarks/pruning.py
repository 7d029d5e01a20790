"""What does pruning cost, and what does it gain? The lab's conv nets with half the operations.

Channels are removed until half of the operations are left, and the smaller net is trained on, even
longer than the whole one was. So accuracy, that of the full test set, is compared with the net as
it was, and with the whole net after as much more training: one pair a seed.

Time is compared on one thread, the variants in turn, in many processes one after the other.
"speed / operations" says how much of what the operations promise the clock gives: 1 is all of it.
Half of the operations is cut in three ways, which differ in the multiple that the numbers of
channels are rounded to. "folded" is the chosen one, and the whole net, with batch norm folded as
one would deploy them: norms are no multiplications that pruning could save.

"masked" is the net with four fifths of its weights at zero: nothing is removed. It takes as long as
before, and only a compressed file becomes smaller.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from benchmarks import trained
from benchmarks.rows import Row
from benchmarks.trained import Scale, exactly, lost, timed_in_turns
from labkit.compression import prune
from labkit.compression.quantize import file_bytes
from labkit.facts import threads
from labkit.measure import Estimate, flops, paired_ratio

SHARE, SPARSITY = 0.5, 0.8
MULTIPLES = (1, 8, 16)
CHOSEN = 16  # the multiple whose accuracy is measured: what a vector of AVX-512 holds
WHOLE, MASKED, PRUNED, TRAINED_ON = "whole", "masked", "pruned", "trained on"


@dataclass(frozen=True)
class Measured:
    """What was found of one width.

    Attributes:
        seconds: of {variant: each turn}; variants are "whole", "masked", the multiples, and
            two of them "folded".
        fewer: {multiple: operations of the whole net over those of the smaller one}.
        accuracy: {"whole", "pruned", "trained on": per cent of each seed}; the last can be missing.
        bytes: {variant: of its file}; "whole, compressed" and "masked, compressed" are files too.
    """

    width: int
    seconds: Mapping[str, Sequence[float]]
    fewer: Mapping[int, float]
    accuracy: Mapping[str, Sequence[float]]
    bytes: Mapping[str, int]


def run(quick: bool = False) -> list[Row]:
    """Return what pruning loses and gains on each width."""
    scale = trained.QUICK if quick else trained.FULL
    with threads(1):
        # the fair baseline costs as much again, so one width must do
        found = [measure(scale, w, trained_on=w == scale.widths[0]) for w in scale.widths]
    return [row for measured in found for row in rows(measured)]


def measure(scale: Scale, width: int, trained_on: bool) -> Measured:
    """Prune nets of one width, train them on, and time them."""
    nets = [trained.convnet(scale, width, seed) for seed in range(scale.seeds)]
    small = {multiple: smaller(scale, nets[0], multiple) for multiple in MULTIPLES}
    pruned = [
        more(scale, smaller(scale, net, CHOSEN), width, seed) for seed, net in enumerate(nets)
    ]
    masked = prune.masked(nets[0], prune.magnitude_masks(nets[0], SPARSITY))
    ways = {WHOLE: nets[0], MASKED: masked} | {str(m): net for m, net in small.items()}
    for way in (WHOLE, str(CHOSEN)):
        ways[f"{way}, folded"] = trained.folded(ways[way])
    compared = {WHOLE: nets, PRUNED: pruned}
    if trained_on:
        compared[TRAINED_ON] = [more(scale, net, width, seed) for seed, net in enumerate(nets)]
    rounds = scale.rounds // 3  # in each of many processes fewer will do
    return Measured(
        width,
        timed_in_turns(ways, trained.example(scale), rounds, scale.turns),
        {m: operations(nets[0]) / operations(net) for m, net in small.items()},
        {name: [trained.accuracy(scale, net) for net in each] for name, each in compared.items()},
        {
            WHOLE: file_bytes(nets[0]),
            PRUNED: file_bytes(pruned[0]),
            f"{WHOLE}, compressed": prune.compressed_bytes(nets[0]),
            f"{MASKED}, compressed": prune.compressed_bytes(masked),
        },
    )


def more(scale: Scale, net: nn.Module, width: int, seed: int) -> nn.Module:
    """Return the net trained on: the same for the pruned and for the whole one."""
    return trained.train_more(scale, net, width, seed, epochs=scale.more, rate=0.1)


def smaller(scale: Scale, net: nn.Module, multiple: int) -> nn.Module:
    """Return the net with channels removed until SHARE of its operations is left."""
    graph = prune.channel_graph(net, trained.ONE_IMAGE)
    scores = prune.taylor_scores(graph, trained.sample(scale))
    keep = prune.choose_for_flops(graph, scores, SHARE, multiple=multiple)
    return prune.remove_channels(net, graph, keep)


def operations(net: nn.Module) -> int:
    return flops(lambda: net(trained.ONE_IMAGE))


def rows(measured: Measured) -> list[Row]:
    """Return the rows of one width."""
    name = f"conv net {measured.width}"
    accuracy, seconds, size = measured.accuracy, measured.seconds, measured.bytes
    before = sum(accuracy[WHOLE]) / len(accuracy[WHOLE])
    half = f"{measured.fewer[CHOSEN]:.2f}x fewer operations"
    found = [
        Row(
            f"{name}: lost by pruning",
            lost(accuracy[WHOLE], accuracy[PRUNED]),
            "points",
            f"of {before:.1f} %; {half}, multiple {CHOSEN}; wanted: at most 0.5",
        )
    ]
    if TRAINED_ON in accuracy:
        fair = lost(accuracy[TRAINED_ON], accuracy[PRUNED])
        found.append(Row(f"{name}: lost to the whole net, trained on", fair, "points", half))
    gained = [(str(multiple), WHOLE, fewer) for multiple, fewer in measured.fewer.items()]
    gained.append((f"{CHOSEN}, folded", f"{WHOLE}, folded", measured.fewer[CHOSEN]))
    for way, whole, fewer in gained:
        speed = paired_ratio(seconds[whole], seconds[way])
        note = f"{speed.value:.2f}x faster, {fewer:.2f}x fewer operations"
        if way == str(CHOSEN):
            note += "; wanted: at least 0.85"
        found.append(
            Row(f"{name}, multiple {way}: speed / operations", share(speed, fewer), "", note)
        )
    file = size[WHOLE] / size[PRUNED]
    packed = size[f"{WHOLE}, compressed"] / size[f"{MASKED}, compressed"]
    return [
        *found,
        Row(f"{name}: smaller file, pruned", exactly(file), "x", f"{size[PRUNED]:,} bytes"),
        Row(
            f"{name}, {SPARSITY:.0%} masked: speed",
            paired_ratio(seconds[WHOLE], seconds[MASKED]),
            "x",
            "zeros are multiplied like any number: the truth is 1",
        ),
        Row(
            f"{name}, {SPARSITY:.0%} masked: smaller file", exactly(packed), "x", "both compressed"
        ),
    ]


def share(speed: Estimate, fewer: float) -> Estimate:
    """Return which part of the operations' ratio the speed is."""
    return replace(speed, value=speed.value / fewer, low=speed.low / fewer, high=speed.high / fewer)
