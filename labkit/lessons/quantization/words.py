"""Quantization: what each outcome of its measurements means."""

from gettext import gettext as _

from labkit.lessons.reading import Sentences

GRIDS = _(
    "Each bit more halves the step, which is worth 6 decibels. A scale for each channel gains "
    "{gain:.1f} dB at 4 bits here, as much as {worth:.1f} bits more. It costs 4 bytes a channel."
)
ROOF = _(
    "int8 instructions here: **{kernels}**. They are taken to make {limits.rate:.0f} times the "
    "products a second, and a quarter of the bytes is moved. By the roof fp32 needs {fp32:.1f} ms "
    "at least, int8 {int8:.1f} ms: **{limits.speed:.1f} times less**. These are two lower bounds: "
    "the ratio measured can be larger, where fp32 stays farther from its roof than int8. The "
    "bounds count eager layers: folded norms can beat them. Weights get **{limits.weight_bits} "
    "bits** here: 8 where the instructions add products in 32 bits, 7 where they add pairs of "
    "products in 16 bits (avx2, avx512), as larger sums would be lost. Without such instructions "
    "the model multiplies in float, and only the file is small."
)
FILE = _(
    "Tensors: predicted {predicted:,} bytes, stored **{tensors:,}**. With {header:,} bytes of "
    "names, shapes and ranges the file is **{smaller:.2f} times smaller** than that of fp32. "
    "Loaded again, the model gives the same outputs, bit for bit: the cell has checked it."
)
STATIC = Sentences(
    better=_("more right answers than fp32, by more than the margin."),
    worse=_("loses more than the margin."),
    same=_("loses nothing that matters."),
    unsure=_("on so few test images nobody can tell; the distance of the answers is more exact."),
)
SPEED = Sentences(
    better=_("**int8 is faster**; the two roofs are {allowed:.1f}x apart."),
    worse=_("**int8 is slower here**; the two roofs are {allowed:.1f}x apart."),
    same=_("**No gain here**; the two roofs are {allowed:.1f}x apart."),
)
KEPT = Sentences(
    better=_("With these layers in float it is even faster."),
    worse=_("It is the slower model."),
    same=_("Leaving them in float costs no time that matters."),
    unsure=_("What leaving them in float costs in time, this run can't tell."),
)
KEPT_RIGHT = Sentences(
    better=_("With these layers in float more answers are right, by more than the margin."),
    worse=_("With these layers in float fewer answers are right, by more than the margin."),
    same=_("Leaving them in float changes nothing that matters in accuracy."),
    unsure=_("Whether leaving them in float helps accuracy, so few test images can't tell."),
)
LANGUAGE = Sentences(
    better=_("faster here."),
    worse=_("slower than fp32 here."),
    same=_("neither gain nor loss of time."),
)
WEIGHTS = Sentences(
    better=_("faster than fp32, although the products are those of fp32."),
    worse=_("slower than fp32 here."),
    same=_("as fast as fp32 here."),
    unsure=_("whether it costs time, this run can't tell."),
)
BITS = Sentences(
    better=_("more right answers than fp32, by more than the margin."),
    worse=_("too few bits for rounding after training."),
    same=_("enough: nothing is lost that matters."),
    unsure=_("whether the margin is kept, so few test images can't tell."),
)
AWARE = Sentences(
    better=_("Training with rounded weights wins accuracy back: {value:.1f} points."),
    worse=_("Training with rounded weights made it worse."),
    same=_("Training with rounded weights changed nothing that matters."),
    unsure=_("Whether training with rounded weights brings anything back, this run can't tell."),
)
CONTROL = Sentences(
    better=_("So it is not the further training that helps, but meeting the rounding in it."),
    worse=_("So here training on in float, and rounding afterwards, is the better way."),
    same=_("The same steps in float, rounded afterwards, do as much."),
    unsure=_("Against the same steps in float, rounded afterwards, this run can't tell."),
)
BOTH = Sentences(
    better=_(
        "Pruning makes int8 faster, too: {value:.2f}x. fp32 it made {alone:.2f}x as fast; the "
        "nearer the two are, the more fully the gains add up in time."
    ),
    worse=_(
        "In time they do not add up: int8 gets slower by pruning (fp32: {alone:.2f}x as fast)."
    ),
    same=_("In time they do not add up: pruning leaves int8 as fast (fp32: {alone:.2f}x as fast)."),
    unsure=_(
        "Whether int8 gets faster by pruning, this run can't tell (fp32: {alone:.2f}x as fast)."
    ),
)
