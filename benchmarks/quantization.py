"""What do fewer bits cost, and what do they gain? Conv nets and transformers in int8 and 4 bits.

int8, static: weights and activations in integers, against the same model in fp32 and channels_last,
on one thread, the variants in turn. Accuracy is that of the full test set, paired by seed.

4 and 3 bits: the weights alone. They are rounded as they are; after one more epoch in float; and
after as much training with the rounding in each forward pass. The share says how much of what few
bits lose the last one wins back, and counts the seeds that lose anything.

Transformers: a short training on the speeches. What int8 costs is the change of the next-token
loss, paired by batch of held-out text. "weights alone" is there to show that it is no faster.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from benchmarks import trained
from benchmarks.rows import Row
from benchmarks.trained import Scale, exactly, lost
from labkit import AdamW, data, models
from labkit.compression import quantize
from labkit.compression.quantize import file_bytes, finish, int8_kernels
from labkit.data import TextData
from labkit.facts import threads
from labkit.measure import latencies, paired_ratio
from labkit.measure.statistics import mean_interval
from labkit.models import next_token_loss
from labkit.seeds import seed_everything
from labkit.training import cosine, fast_precision, next_token, train

FLOAT, FOLDED, INT8 = "fp32", "fp32, batch norm folded", "int8"
FEW_BITS = (4, 3)
WANTED = {32: 3, 64: 4}  # times faster


@dataclass(frozen=True)
class Images:
    """What was found of conv nets of one width.

    Attributes:
        seconds: {"fp32", "fp32, batch norm folded", "int8": each round}.
        accuracy: {variant: per cent of each seed}; those with few bits can be missing.
        bytes: {"fp32", "int8": of its file}.
    """

    width: int
    seconds: Mapping[str, Sequence[float]]
    accuracy: Mapping[str, Sequence[float]]
    bytes: Mapping[str, int]


@dataclass(frozen=True)
class Text:
    """What was found of a transformer of one width: seconds by round, losses in nats by batch."""

    width: int
    seconds: Mapping[str, Sequence[float]]
    losses: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class TextScale:
    """How much text is learned: transformers' widths, characters, steps, and rounds of timing."""

    widths: tuple[int, ...]
    characters: int
    steps: int
    rounds: int


FULL = TextScale((256, 512), characters=1_000_000, steps=150, rounds=30)
QUICK = TextScale((32,), characters=200_000, steps=5, rounds=6)


def run(quick: bool = False) -> list[Row]:
    """Return what quantization loses and gains on each width."""
    scale, text = (trained.QUICK, QUICK) if quick else (trained.FULL, FULL)
    with threads(1):
        images = [measure_images(scale, w, aware=w == scale.widths[0]) for w in scale.widths]
        speeches = data.speeches(text.characters)
        texts = [measure_text(text, speeches, width) for width in text.widths]
    found = [row for measured in images for row in image_rows(measured, int8_kernels())]
    return found + [row for measured in texts for row in text_rows(measured)]


def measure_images(scale: Scale, width: int, aware: bool) -> Images:
    """Quantize nets of one width, and time the first."""
    seeds, calibration = range(scale.seeds), trained.sample(scale)
    nets = [trained.convnet(scale, width, seed) for seed in seeds]
    small = [quantize.static(net, calibration) for net in nets]
    compared: dict[str, list[nn.Module]] = {FLOAT: nets, INT8: [*small]}
    if aware:
        compared |= few_bits(scale, width, nets)
    return Images(
        width,
        seconds(
            {FLOAT: nets[0], FOLDED: trained.folded(nets[0]), INT8: small[0]},
            trained.example(scale),
            scale.rounds,
        ),
        {name: [trained.accuracy(scale, net) for net in each] for name, each in compared.items()},
        {FLOAT: file_bytes(nets[0]), INT8: file_bytes(small[0])},
    )


def few_bits(scale: Scale, width: int, nets: Sequence[nn.Module]) -> dict[str, list[nn.Module]]:
    """Return nets with few bits: as they are, trained on, and trained with the rounding."""

    def more(given: Sequence[nn.Module]) -> list[nn.Module]:
        return [
            trained.train_more(scale, model, width, seed, epochs=1, rate=0.01)
            for seed, model in enumerate(given)
        ]

    found, longer = {}, more(nets)
    for bits in FEW_BITS:
        aware = more([quantize.aware(net, bits) for net in nets])
        found[f"{bits} bits"] = [quantize.weights(net, bits) for net in nets]
        found[f"{bits} bits, trained on"] = [quantize.weights(net, bits) for net in longer]
        found[f"{bits} bits, aware"] = [finish(net) for net in aware]
    return found


def measure_text(scale: TextScale, speeches: TextData, width: int) -> Text:
    """Train a transformer for a little, quantize it, and time it on 8 x 64 tokens."""
    model = learned(scale, speeches, width)
    held_out = list(speeches.test_batches(8))
    calibration = list(islice(speeches.batches(8), 8))
    tokens = calibration[0][0]
    variants = {
        FLOAT: model,
        "static": quantize.static(model, calibration),
        "dynamic": quantize.dynamic(model, tokens),
        "weights alone": quantize.weights(model),
    }
    return Text(
        width,
        seconds(variants, tokens, scale.rounds),
        {name: token_losses(variant, held_out) for name, variant in variants.items()},
    )


def learned(scale: TextScale, speeches: TextData, width: int) -> nn.Module:
    """Return a transformer that has seen a few of the speeches."""
    seed_everything(0)
    model = models.transformer(speeches.vocabulary, width=width, context=speeches.context)
    steps = train(
        model,
        speeches.batches(16),
        AdamW(lr=1e-3).build(model),
        task=next_token(),
        schedule=cosine(warmup=0.1),
        precision=fast_precision(),
        clip=1.0,
        steps=scale.steps,
    )
    for _ in steps:
        pass
    return model.eval()


@torch.no_grad()
def token_losses(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> list[float]:
    """Return the next-token loss of each batch, in nats."""
    return [float(next_token_loss(model(tokens), targets)) for tokens, targets in batches]


def seconds(
    variants: Mapping[str, nn.Module], inputs: Tensor, rounds: int
) -> dict[str, Sequence[float]]:
    """Return the seconds of each round."""
    return {name: each.seconds for name, each in latencies(variants, inputs, rounds).items()}


def image_rows(measured: Images, kernels: str) -> list[Row]:
    """Return the rows of conv nets of one width; `kernels` is what the processor has for int8."""
    name, accuracy = f"conv net {measured.width}", measured.accuracy
    wanted = WANTED.get(measured.width)
    before = sum(accuracy[FLOAT]) / len(accuracy[FLOAT])
    smaller = measured.bytes[FLOAT] / measured.bytes[INT8]
    found = [
        Row(
            f"{name}, int8: speed",
            paired_ratio(measured.seconds[FLOAT], measured.seconds[INT8]),
            "x",
            (kernels or "no int8 kernels") + (f"; wanted: at least {wanted}" if wanted else ""),
        ),
        Row(
            f"{name}, {FOLDED}: speed",
            paired_ratio(measured.seconds[FLOAT], measured.seconds[FOLDED]),
            "x",
            "what int8 gets of this, and not of its integers",
        ),
        Row(
            f"{name}, int8: lost",
            lost(accuracy[FLOAT], accuracy[INT8]),
            "points",
            f"of {before:.2f} %; wanted: at most 0.3",
        ),
        Row(
            f"{name}, int8: smaller file",
            exactly(smaller),
            "x",
            f"{measured.bytes[INT8]:,} bytes; wanted: at least 3.8",
        ),
    ]
    for variant in accuracy:
        if variant not in (FLOAT, INT8):
            points = lost(accuracy[FLOAT], accuracy[variant])
            found.append(Row(f"{name}, {variant}: lost", points, "points"))
    for bits in FEW_BITS:
        if f"{bits} bits" in accuracy:
            found.append(won_back(name, f"{bits} bits", accuracy))
    return found


def won_back(name: str, few: str, accuracy: Mapping[str, Sequence[float]]) -> Row:
    """Return the share of what few bits lose that training with the rounding wins back."""
    trios = zip(accuracy[FLOAT], accuracy[few], accuracy[f"{few}, aware"], strict=True)
    shares = [
        100 * (aware - rounded) / (whole - rounded)
        for whole, rounded, aware in trios
        if whole > rounded
    ]
    what = f"{name}, {few}, aware: won back"
    if not shares:
        return Row(what, None, "", f"{few} lose nothing here")
    return Row(what, mean_interval(shares), "%", f"of what {few} lose; wanted: at least 50")


def text_rows(measured: Text) -> list[Row]:
    """Return the rows of one transformer."""
    before = sum(measured.losses[FLOAT]) / len(measured.losses[FLOAT])
    found = []
    for variant in measured.seconds:
        if variant == FLOAT:
            continue
        name = f"transformer {measured.width}, {variant}"
        speed = paired_ratio(measured.seconds[FLOAT], measured.seconds[variant])
        # a loss rises where accuracy falls
        rise = lost(measured.losses[variant], measured.losses[FLOAT])
        found += [
            Row(f"{name}: speed", speed, "x", "8 x 64 tokens"),
            Row(f"{name}: loss", rise, "nats", f"more than {before:.3f}"),
        ]
    return found
