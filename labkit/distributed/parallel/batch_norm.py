"""Batch norm over the images of all ranks, on CPU and CUDA.

Batch norm makes each image depend on the others in its batch. With data parallel each rank has a
batch of its own, so the network is no longer that of one process with the joined batch: with few
images a rank, means and variances are noisy; with different classes on different ranks, they are
wrong. Synchronized batch norm takes them over all ranks: one all-reduce in the forward pass and one
in the backward pass of every such layer, and in each of them all ranks wait for the slowest. Where
the images are well shuffled, plain batch norm may be as good, and costs nothing: measure.

For ranks k with m_k values a channel, mean u_k and sum of squared deviations M_k, joined after
Chan, Golub and LeVeque (1979); E[x²] - E[x]² would cancel all digits when the mean is large:

    N = Σ m_k,   u = Σ m_k u_k / N,   M = Σ M_k + Σ m_k (u_k - u)²,   s = 1 / √(M / N + eps)
    y = (x - u) s w + b
    dL/db = Σ g,   dL/dw = Σ g x̂,   dL/dx = w s (g - (Σ g) / N - x̂ (Σ g x̂) / N)

with g = dL/dy, x̂ = (x - u) s. In dL/dx the sums run over all ranks, because every image moved the
mean of all; dL/dw and dL/db stay this rank's own, since data parallel averages them anyway.

`torch.nn.SyncBatchNorm` does the same in fused kernels, on GPUs only: use that one there.

Source: Ioffe and Szegedy, "Batch Normalization", 2015; Peng et al., "MegDet: A Large Mini-Batch
Object Detector", 2018 (over many devices).
"""

import copy
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from labkit.distributed.collectives.coalesced import AllReduce


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm of (batch, channels) or (batch, channels, …) over all ranks while it trains.

    Arguments, parameters, buffers and state are those of `torch.nn.BatchNorm2d`. In evaluation, and
    in a world of one, it is that layer. A rank may have fewer images than others, or none.

    Attributes:
        all_reduce: sums over ranks in place; see `synchronize_batch_norm`.

    Raises:
        ValueError: fewer than two dimensions, or one single value a channel over all ranks.
    """

    def __init__(self, num_features: int, *arguments: Any, **settings: Any) -> None:
        super().__init__(num_features, *arguments, **settings)
        self.all_reduce: AllReduce = dist.all_reduce

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input, in its shape, dtype and memory format."""
        self._check_input_dim(input)
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(input)
        channels = self.num_features
        if input.shape[1] != channels:
            raise ValueError(f"input must have {channels} channels, got {tuple(input.shape)}")
        # One message for all three: count, mean and squares travel together.
        stats = _joined(_own_stats(input), self.all_reduce)
        # Reading a count from a GPU waits for it, so only who has too few values alone asks.
        if input.numel() < 2 * channels and stats[0].item() < 2:
            raise ValueError("there must be more than one value a channel over all ranks")
        if self.track_running_stats:
            self._remember(*stats)
        arguments = (self.weight, self.bias, stats, self.eps, self.all_reduce)
        output: Tensor = _Normalize.apply(input, *arguments)
        return output

    @torch.no_grad()
    def _remember(self, count: Tensor, mean: Tensor, squares: Tensor) -> None:
        """Move the running statistics, as the plain layer would after the joined batch."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:  # the average of all batches so far
            share = 1 / self.num_batches_tracked.item()
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        # Unbiased, as the plain layer keeps it; it normalises by the biased one.
        self.running_var.lerp_((squares / (count - 1)).to(self.running_var.dtype), share)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"input must have 2 or more dimensions, got {tuple(input.shape)}")


def synchronize_batch_norm(model: nn.Module, all_reduce: AllReduce = dist.all_reduce) -> nn.Module:
    """Return a copy of `model` in which each batch norm is a SyncBatchNorm; nothing else differs.

    Weights, running statistics, hooks and attributes are kept. Make the optimizer, and wrap the
    model, afterwards.

    Args:
        model: any; not yet wrapped in DistributedDataParallel.
        all_reduce: sums over ranks in place; a `NetworkMeter`'s counts as well.

    Raises:
        TypeError: `model` is no module.
        ValueError: a batch norm computes otherwise than torch's, or has no size yet.
    """
    for name, layer in model.named_modules():  # before the copy, which some cannot be part of
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and type(layer) not in _PLAIN:
            raise ValueError(
                f"model must have torch's own batch norms, got {type(layer).__name__} {name}: "
                "synchronize a lazy one after its first batch, a parametrized one before"
            )
    converted = copy.deepcopy(model)
    for layer in converted.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            # The class alone: tensors that others share, hooks and attributes stay where they are.
            layer.__class__ = SyncBatchNorm
            layer.all_reduce = all_reduce  # type: ignore[assignment]
    return converted


_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, SyncBatchNorm)


def _own_stats(x: Tensor) -> Tensor:
    """Return this rank's (1 + 2 channels,): values a channel, mean, sum of squared deviations."""
    x, channels = _wide(x.detach()), x.shape[1]
    count = x.numel() // channels
    if count == 0:  # this rank has no images, but the others wait for its word
        return x.new_zeros(1 + 2 * channels)
    mean = x.mean(_all_but_channels(x))
    squares = (x - _by_channel(mean, x)).square_().sum(_all_but_channels(x))
    return torch.cat([x.new_tensor([count]), mean, squares])


def _joined(stats: Tensor, all_reduce: AllReduce) -> tuple[Tensor, Tensor, Tensor]:
    """Return count (1,), mean (channels,) and sum of squares (channels,) of all ranks' values."""
    table = stats.new_zeros(dist.get_world_size(), len(stats))
    table[dist.get_rank()] = stats
    all_reduce(table)  # each row has one owner, so the sum brings all rows to all ranks
    # The table is the same on all ranks, and so are the sums below, to the bit.
    counts, (means, squares) = table[:, :1], table[:, 1:].chunk(2, dim=1)
    count = counts.sum(dim=0)
    mean = (counts * means).sum(dim=0) / count.clamp(min=1)
    return count, mean, (squares + counts * (means - mean).square()).sum(dim=0)


class _Normalize(torch.autograd.Function):
    """Normalise with statistics of all ranks; the module's docstring has the formulas."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        stats: tuple[Tensor, Tensor, Tensor],
        eps: float,
        all_reduce: AllReduce,
    ) -> Tensor:
        ctx.all_reduce, (ctx.count, mean, squares) = all_reduce, stats
        scale = (squares / ctx.count + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, scale)
        y = _wide(x) - _by_channel(mean, x)  # in place from here on: new memory costs more time
        y.mul_(_by_channel(scale if weight is None else scale * weight, x))
        return (y if bias is None else y.add_(_by_channel(bias, x))).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        g, dims = _wide(grads[0]), _all_but_channels(x)
        centred = _wide(x) - _by_channel(mean, x)  # again: to keep it would cost a second x
        sums = torch.stack([g.sum(dims), (g * centred).sum(dims) * scale])  # Σ g, Σ g x̂
        for_bias, for_weight = sums.clone()  # this rank's own, before the others' come in
        grad_input = None
        if ctx.needs_input_grad[0]:
            ctx.all_reduce(sums)
            of_g, of_both = sums / ctx.count
            grad_input = centred.mul_(_by_channel(-of_both * scale, x))
            grad_input.sub_(_by_channel(of_g, x)).add_(g)
            grad_input.mul_(_by_channel(scale if weight is None else scale * weight, x))
            grad_input = grad_input.to(x.dtype)
        needs = ctx.needs_input_grad
        return (
            grad_input,
            for_weight.to(weight.dtype) if needs[1] else None,
            for_bias if needs[2] else None,
            *(None, None, None),
        )


def _wide(x: Tensor) -> Tensor:
    """Return float32 for 16-bit numbers: sums of many need the digits."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _all_but_channels(x: Tensor) -> list[int]:
    return [dim for dim in range(x.dim()) if dim != 1]


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    """Give (channels,) the dimensions of x, so that the two can be multiplied."""
    return values.view(-1, *[1] * (x.dim() - 2))
