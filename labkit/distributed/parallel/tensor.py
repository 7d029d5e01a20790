"""Tensor parallel: every rank multiplies by its own part of the same matrix.

A layer that is too large for one device can be cut. By its *columns* (output features), each rank
makes some of the outputs from the whole input. By its *rows* (input features), each rank makes a
part of every output's sum from some of the inputs, and the parts are added up. Columns first, rows
after: what the first layer puts out on a rank is just what the second one needs there, and the
activation between them (ReLU, GELU, the heads of an attention) works on each part alone. So a pair
costs one sum over the ranks forward, after the second layer, and one backward, before the first.

Those two places are `copy_to_ranks` and `sum_over_ranks`, f and g in the paper. Each is what the
other's backward pass is. The sums lie on the critical path of every layer, four in a transformer
block, so tensor parallel wants the fastest links there are (within one machine) and wide layers.
Biases, norms and embeddings stay whole here, the same on each rank; Megatron also cuts the
vocabulary. In real work use `torch.distributed.tensor.parallel`, which says the same with DTensor.

Source: Shoeybi et al., "Megatron-LM: Training Multi-Billion Parameter Language Models Using Model
Parallelism", 2019, section 3.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.distributed.collectives.coalesced import JoinedNorm
from labkit.distributed.launcher.world import place


class _Copy(torch.autograd.Function):
    # Each rank used x for other outputs, so each has only a part of its gradient.
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _sum(gradients[0], ctx.group), None


class _Sum(torch.autograd.Function):
    # Everything after the sum is computed alike on all ranks, so each has the whole gradient.
    # To sum it again, as torch.distributed.nn.all_reduce does, would count it once a rank.
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        return _sum(x, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def _sum(x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)  # summed in place, so contiguous
    dist.all_reduce(total, group=group)
    return total


def copy_to_ranks(x: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """Return `x` as it is; its gradient is the sum of those of all ranks (Megatron's f).

    Args:
        x: the same on each rank.
        group: the ranks that share the layer; all, when None.
    """
    copy: Tensor = _Copy.apply(x, group)
    return copy


def sum_over_ranks(x: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """Return the sum of all ranks' `x`; its gradient goes back to each as it is (Megatron's g).

    Args:
        x: this rank's part of the sum, of the same shape on each rank.
        group: the ranks that share the layer; all, when None.
    """
    total: Tensor = _Sum.apply(x, group)
    return total


class _Part(nn.Linear):
    """This rank's part of a linear layer. `cut` is the dimension that each parameter is cut in.

    Attributes:
        joined_norm: of gradients of its parts, over all ranks that share the layer: for clipping.
    """

    cut: ClassVar[Mapping[str, int]]

    def __init__(self, linear: nn.Linear, group: dist.ProcessGroup | None = None) -> None:
        nn.Module.__init__(self)  # not Linear's, which would make and fill a whole layer
        self.group, self.joined_norm = group, JoinedNorm(group)
        rank, ranks = place(group)
        for name, parameter in linear.named_parameters():
            part = parameter.detach()
            if name in self.cut:
                if part.shape[self.cut[name]] % ranks:
                    raise ValueError(
                        f"linear's {name} of shape {tuple(part.shape)} cannot be cut into {ranks} "
                        f"equal parts along dimension {self.cut[name]}"
                    )
                part = part.chunk(ranks, self.cut[name])[rank]
            # A clone: a view would keep the whole layer in memory, which is what is to be saved.
            setattr(self, name, nn.Parameter(part.clone(), parameter.requires_grad))
        if "bias" not in self._parameters:
            self.register_parameter("bias", None)
        self.out_features, self.in_features = self.weight.shape

    def parts(self) -> list[nn.Parameter]:
        """Return the parameters that are cut; the others are whole on each rank."""
        return [p for name, p in self.named_parameters(recurse=False) if name in self.cut]


class ColumnLinear(_Part):
    """Some output features of a linear layer: (..., inputs) -> (..., outputs / ranks).

    The input must be the same on all ranks and have come through `copy_to_ranks`; `split` sees to
    that, once for all layers that share an input, such as query, key and value.

    Args:
        linear: the whole layer, the same on each rank.
        group: the ranks that share it; all, when None.

    Raises:
        ValueError: the output features are no multiple of the number of ranks.
    """

    cut: ClassVar[Mapping[str, int]] = {"weight": 0, "bias": 0}


class RowLinear(_Part):
    """Some input features of a linear layer, summed over the ranks: (..., inputs) -> whole output.

    The input is a rank's own part, (..., inputs / ranks), as a ColumnLinear made it. A lone layer
    is given the whole input, the same on each rank, and takes its own part of it.

    Args:
        linear: the whole layer, the same on each rank.
        group: the ranks that share it; all, when None.

    Raises:
        ValueError: the input features are no multiple of the number of ranks.
    """

    cut: ClassVar[Mapping[str, int]] = {"weight": 1}

    def __init__(self, linear: nn.Linear, group: dist.ProcessGroup | None = None) -> None:
        super().__init__(linear, group)
        self.whole_inputs = linear.in_features

    def forward(self, input: Tensor) -> Tensor:
        """Return the whole output. The bias is added once, after the sum."""
        if input.shape[-1] == self.whole_inputs > self.in_features:
            whole = copy_to_ranks(input, self.group)
            input = whole.tensor_split(dist.get_world_size(self.group), -1)[
                dist.get_rank(self.group)
            ]
        # Without the bias, which every rank has whole: the sum would hold it once a rank.
        total = sum_over_ranks(F.linear(input, self.weight), self.group)
        return total if self.bias is None else total + self.bias


def split(
    module: nn.Module,
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
    group: dist.ProcessGroup | None = None,
) -> nn.Module:
    """Cut linear layers of `module` in place, so that each rank keeps its part; return `module`.

        split(mlp, columns=["up"], rows=["down"])
        split(attention, columns=["query", "key", "value"], rows=["output"])
        split(resnet, rows=["fc"])

    Args:
        module: the same on each rank. With `columns`, its first argument feeds them.
        columns: names of layers to cut by output features; what follows them must work on each
            feature (or each head) alone, up to a layer of `rows`.
        rows: names of layers to cut by input features.
        group: the ranks to split over; all, when None.

    Raises:
        TypeError: a named layer is no nn.Linear.
        ValueError: a layer cannot be cut into equal parts; or columns without rows.
    """
    if columns and not rows:
        raise ValueError(f"rows must name the layer that follows {', '.join(columns)}, got none")
    kinds = {**dict.fromkeys(columns, ColumnLinear), **dict.fromkeys(rows, RowLinear)}
    parts = {}
    for name, kind in kinds.items():
        linear = dict(module.named_modules()).get(name)
        if type(linear) is not nn.Linear:  # a subclass may compute otherwise; a part is cut already
            raise TypeError(f"{name} must be an nn.Linear, got {type(linear).__name__}")
        parts[name] = kind(linear, group)
    for name, part in parts.items():  # only now that all could be cut
        module.set_submodule(name, part)
    if columns:  # once for all layers that share the input: one sum in backward instead of three
        module.register_forward_pre_hook(
            lambda module, inputs, named: _copied_first(module, inputs, named, group),
            with_kwargs=True,
        )
    return module


def _copied_first(
    module: nn.Module,
    inputs: tuple[Any, ...],
    named: dict[str, Any],
    group: dist.ProcessGroup | None,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Let a module's first argument come through `copy_to_ranks`, however it is given."""
    if inputs:
        return (copy_to_ranks(inputs[0], group), *inputs[1:]), named
    names = [name for name in inspect.signature(module.forward).parameters if name in named]
    for name in (names or list(named))[:1]:
        named = {**named, name: copy_to_ranks(named[name], group)}
    return inputs, named


def split_blocks(model: nn.Module, group: dist.ProcessGroup | None = None) -> nn.Module:
    """Cut attention and MLP of each of `model.blocks` in place; return `model`.

    Args:
        model: `labkit.models.transformer(…)`, the same on each rank.
        group: the ranks to split over; all, when None.

    Raises:
        ValueError: heads or widths are no multiple of the number of ranks.
    """
    ranks, blocks = place(group)[1], model.get_submodule("blocks")
    for name, layer in blocks.named_modules():
        # Columns that divide are not enough: half a head is none. Before anything is cut.
        if width := getattr(layer, "head_width", None):
            heads = layer.query.out_features // width
            if heads % ranks:
                raise ValueError(
                    f"model must have heads for {ranks} ranks alike, blocks.{name} has {heads}"
                )
    for block in blocks.children():
        split(block.get_submodule("attention"), ["query", "key", "value"], ["output"], group)
        split(block.get_submodule("mlp"), ["up"], ["down"], group)
    return model


def whole(model: nn.Module, *, gradients: bool = False) -> dict[str, Tensor]:
    """Return {name: tensor} of a split model as one process would hold it; all ranks must call it.

    Args:
        model: with or without split layers.
        gradients: the parameters' gradients instead of the parameters.
    """
    result = {}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(path, recurse=False):
            tensor = parameter.grad if gradients else parameter.detach()
            if tensor is None:  # frozen, or unused: on all ranks alike
                continue
            cut = module.cut.get(name.rpartition(".")[2]) if isinstance(module, _Part) else None
            result[name] = tensor if cut is None else _gathered(tensor, cut, module.group)
    return result


def _gathered(part: Tensor, cut: int, group: dist.ProcessGroup | None) -> Tensor:
    parts = [torch.empty_like(part) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, part.contiguous(), group=group)
    return torch.cat(parts, cut)
