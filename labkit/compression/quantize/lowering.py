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

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

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
KERNELS = {"amx_int8": "amx-int8", "avx512_vnni": "avx512-vnni", "avx_vnni": "avx-vnni"}


def int8_kernels() -> str:
    """Return the best int8 instructions of this processor that the lowered graph would use.

    Returns:
        "amx-int8", "avx512-vnni", "avx-vnni", or "" where there are none: then a quantized model
        is smaller and right, and slower than the float one. The lowering knows x86 only.
    """
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    flags = _capabilities() if has_onednn else {}
    return next((label for flag, label in KERNELS.items() if flags.get(flag, False)), "")


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


def _capabilities() -> Mapping[str, Any]:
    if hasattr(torch.cpu, "get_capabilities"):
        return torch.cpu.get_capabilities()
    # older torch tells under private names only
    amx, vnni = torch.cpu._is_amx_tile_supported(), torch.cpu._is_vnni_supported()
    return {"amx_int8": amx, "avx512_vnni": vnni}


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
    for node in lowered.graph.nodes:
        if node.target in VIEWS:
            node.target = aten.reshape.default
            if node.args[0].target is aten.clone.default:  # reshape copies where it has to
                node.update_arg(0, node.args[0].args[0])
        # the passes know the transposed weight of a linear layer as a permutation only
        elif node.target is aten.t.default:
            node.target, node.args = aten.permute.default, (node.args[0], [1, 0])
    lowered.graph.eliminate_dead_code()
    lowered.recompile()


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
