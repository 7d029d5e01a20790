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
    "at least, int8 {int8:.1f} ms: **{limits.speed:.1f}x at best**. The bound counts eager layers: "
    "folded norms can beat it. Without such instructions the model multiplies in float, and only "
    "the file is small."
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
    better=_("**int8 is faster**; the roof allows {allowed:.1f}x."),
    worse=_("**int8 is slower here**: rounding inputs costs more than its products save."),
    same=_("**No gain here**: what the products save is spent around them."),
)
KEPT = Sentences(
    better=_("With these layers in float it is even faster."),
    worse=_("It is the slower model: around a float layer tensors turn to floats and back."),
    same=_("Leaving them in float costs no time that matters."),
    unsure=_("What leaving them in float costs in time, this run can't tell."),
)
LANGUAGE = Sentences(
    better=_("pays here."),
    worse=_("slower than fp32 here: each rounding is a pass over the tensor of its own."),
    same=_("neither gain nor loss of time."),
)
WEIGHTS = Sentences(
    better=_("faster than fp32, although the products are those of fp32."),
    worse=_("slower than fp32: each forward pass makes floats of the integers first."),
    same=_("as fast as fp32: the products are the same."),
    unsure=_("no difference in time that this run can show."),
)
BITS = Sentences(
    better=_("more right answers than fp32, by more than the margin."),
    worse=_("too few bits: the network never met such weights, it was trained with others."),
    same=_("enough: nothing is lost that matters."),
    unsure=_("whether the margin is kept, so few test images can't tell."),
)
AWARE = Sentences(
    better=_("Training with rounded weights brings accuracy back."),
    worse=_("Training with rounded weights made it worse: run a longer profile."),
    same=_("Training with rounded weights changed nothing that matters."),
    unsure=_("Whether training with rounded weights brings anything back, this run can't tell."),
)
CONTROL = Sentences(
    better=_("So it is not the further training that helps, but meeting the rounding in it."),
    worse=_("So here training on in float, and rounding afterwards, is the better way."),
    same=_("The same steps in float, rounded afterwards, do as much."),
    unsure=_("Against the same steps in float, rounded afterwards, this run can't tell."),
)
