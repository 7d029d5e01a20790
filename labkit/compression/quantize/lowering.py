"""From a graph that only pretends to be int8 to one that runs int8 kernels on an x86 processor.

torchao's quantization ends with a graph that rounds each tensor to integers, turns it back into
floats and computes in float: right, and slower than the float model. Lowering replaces each
"integers to floats, convolution, floats to integers" by one oneDNN kernel that stays in integers.
torch's compiler has the patterns for it ("freezing passes"); they need no compiler of C++.

torchao offers this as `lower_pt2e_quantized_to_x86`. This one does the same work and cures three
things, each found with a test that fails without it:

- the passes know a linear layer on (batch, time, width) only between two `reshape`, while the graph
  has `view`, so all linear layers of a transformer stayed float;
- the batch size was fixed to the example's: here it is exported, and passed on, as a symbol;
- a kernel that adds to a tensor with swapped dimensions (torch's attention leaves such) puts the
  numbers into the wrong places: its operands are made contiguous first.

`freezing_passes` and `constant_fold` are private to torch, which is why they stand in this file
only, and why a test counts the kernels that come out.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from labkit.facts import int8_saturates

aten = torch.ops.aten
VIEWS = (aten.view.default, aten._unsafe_view.default)
# Arguments that a kernel takes for contiguous without a look: its input, and what it adds to.
ROWS, CHANNELS_LAST = torch.contiguous_format, torch.channels_last
CONTIGUOUS = {
    "onednn.qlinear_pointwise.default": ((0,), ROWS),
    "onednn.qlinear_pointwise.tensor": ((0,), ROWS),
    "onednn.qlinear_pointwise.binary": ((0, 6), ROWS),
    "onednn.qlinear_pointwise.binary_tensor": ((0, 6), ROWS),
    "onednn.qconv2d_pointwise.binary": ((6,), CHANNELS_LAST),
}

Call = Callable[..., fx.Node]  # (operation, *arguments) -> a node


def _hardtanh(call: Call, x: fx.Node, low: float = -1.0, high: float = 1.0) -> fx.Node:
    return call(aten.clamp_max.default, call(aten.clamp_min.default, x, low), high)


def _hardswish(call: Call, x: fx.Node) -> fx.Node:
    up_to_six = _hardtanh(call, call(aten.add.Tensor, x, 3), 0, 6)
    return call(aten.div.Tensor, call(aten.mul.Tensor, x, up_to_six), 6)


def _silu(call: Call, x: fx.Node) -> fx.Node:
    power = call(aten.exp.default, call(aten.neg.default, x))
    return call(aten.div.Tensor, x, call(aten.add.Tensor, power, 1))


CURVES: dict[Any, Call] = {
    aten.hardtanh.default: _hardtanh,
    aten.hardswish.default: _hardswish,
    aten.silu.default: _silu,
}
SATURATING = ("avx512", "avx2")


def int8_kernels() -> str:
    """Return the int8 instructions that the lowered graph uses on this processor.

    Returns:
        "amx-int8", "avx512-vnni" or "avx-vnni", which add products in 32 bits; "avx512" or "avx2",
        which add pairs of them in 16 bits, so that weights get 7 bits (see `weight_bits`); "" where
        there are none: then a quantized model is smaller and right, and slower than the float one.
        The lowering knows x86 only.
    """
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    flags = _capabilities() if has_onednn else {}
    if not flags.get("avx2", False):
        return ""
    # What the processor has is not always what oneDNN uses: it can be told to do with less.
    wide = flags.get("avx512_bw", False) and _wide()
    if int8_saturates():
        return "avx512" if wide else "avx2"
    if flags.get("amx_int8", False):
        return "amx-int8"
    return "avx512-vnni" if wide else "avx-vnni"


def weight_bits() -> int:
    """Return 8, or 7 where the kernels add pairs of products in 16 bits.

    Two products of inputs up to 255 and weights up to 64 are 32,640 at most, which 16 bits hold.
    To halve the weights, and not the inputs, has two merits: no input can break it, not even one
    far outside the range that calibration saw, and weights have a scale for each channel, which
    makes up for the bit. Sources: oneDNN's guide on int8 computations; ONNX Runtime's
    `reduce_range`.
    """
    return 7 if int8_kernels() in SATURATING else 8


def lower(converted: fx.GraphModule, inputs: tuple[Tensor, ...], batch: Any) -> fx.GraphModule:
    """Return the graph with oneDNN's int8 kernels in it.

    Args:
        converted: what `convert_pt2e` returned.
        inputs: what it is called with.
        batch: the dynamic shapes that it was exported with.
    """
    from torch._inductor.constant_folding import constant_fold
    from torch._inductor.fx_passes.freezing_patterns import freezing_passes

    # strict is for tracing Python; what comes in is a graph already
    program = torch.export.export(converted, inputs, dynamic_shapes=batch, strict=False)
    lowered: fx.GraphModule = program.run_decompositions(_decompositions()).module()
    _use_names_of_the_patterns(lowered)
    symbolic = [node.meta["val"] for node in lowered.graph.nodes if node.op == "placeholder"]
    freezing_passes(lowered, symbolic)  # reads shapes from fake tensors, so the batch stays free
    constant_fold(lowered)  # packs the weights now, not at each call
    _make_operands_contiguous(lowered)
    return lowered


def _wide() -> bool:
    """Does oneDNN use instructions of 512 bits? Where it does, it has bf16."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _capabilities() -> Mapping[str, Any]:
    if hasattr(torch.cpu, "get_capabilities"):
        return torch.cpu.get_capabilities()
    # older torch tells under private names only
    wide = torch.cpu._is_avx512_supported()
    amx = torch.cpu._is_amx_tile_supported()
    return {"avx2": torch.cpu._is_avx2_supported(), "avx512_bw": wide, "amx_int8": amx}


def _decompositions() -> dict[Any, Any]:
    """Those of composite operations only (conv2d, linear, ...): the patterns know what is below."""
    table: dict[Any, Any] = torch.export.default_decompositions()
    found = {operation: table[operation] for operation in list(table) if operation._can_decompose()}
    return found | {aten.linear.default: _linear}


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer as a product of two matrices, also where torch would take many small ones."""
    # A batch of matrices would become `bmm`, which has no int8 kernel.
    rows = x.reshape(-1, x.shape[-1])
    product = rows @ weight.t() if bias is None else torch.addmm(bias, rows, weight.t())
    return product.reshape(*x.shape[:-1], len(weight))


def _use_names_of_the_patterns(lowered: fx.GraphModule) -> None:
    for node in list(lowered.graph.nodes):
        if node.target in VIEWS:
            node.target = aten.reshape.default
            if node.args[0].target is aten.clone.default:  # reshape copies where it has to
                node.update_arg(0, node.args[0].args[0])
        # the passes know the transposed weight of a linear layer as a permutation only
        elif node.target is aten.t.default:
            node.target, node.args = aten.permute.default, (node.args[0], [1, 0])
        elif node.target in CURVES:
            _spell_out(node)
        elif node.target is aten.add.Tensor and _stumbles(node):
            node.target = torch.add  # the same sum, under a name that no pattern has
    lowered.graph.eliminate_dead_code()
    lowered.recompile()


def _spell_out(curve: fx.Node) -> None:
    """Replace a curve after a convolution by the steps under which the kernels know it."""
    arguments: tuple[Any, ...] = curve.args
    x, graph = arguments[0], curve.graph
    # What else reads the convolution would need its numbers before the curve.
    if x.target is not aten.convolution.default or len(x.users) > 1:
        return
    with graph.inserting_before(curve):
        steps = CURVES[curve.target](
            lambda step, *args: graph.call_function(step, args), *arguments
        )
    curve.replace_all_uses_with(steps)
    graph.erase_node(curve)


def _stumbles(total: fx.Node) -> bool:
    """Would the passes fuse this sum wrongly?

    They forget a factor, and fail at a sum with a curve that they have fused with a linear layer.
    """
    return bool(total.kwargs.get("alpha", 1) != 1) or any(map(_bent, total.args))


def _bent(node: Any) -> bool:
    if not isinstance(node, fx.Node) or node.target not in (aten.relu.default, aten.gelu.default):
        return False
    product = node.args[0]
    while isinstance(product, fx.Node) and product.target is aten.reshape.default:
        product = product.args[0]
    return isinstance(product, fx.Node) and product.target in (aten.mm.default, aten.addmm.default)


def _make_operands_contiguous(lowered: fx.GraphModule) -> None:
    for node in list(lowered.graph.nodes):
        positions, form = CONTIGUOUS.get(str(node.target), ((), ROWS))
        for position in positions:
            with lowered.graph.inserting_before(node):
                made = lowered.graph.call_function(
                    aten.contiguous.default, (node.args[position],), {"memory_format": form}
                )
            node.update_arg(position, made)
    lowered.recompile()
