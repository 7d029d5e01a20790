"""N:M pruning: of each M neighbouring weights, the N largest stay. 2:4 is what hardware knows.

It lies between single weights (free choice, no speed) and whole channels (speed, coarse choice).
With two of four, NVIDIA's tensor cores since Ampere skip the zeros and reach up to twice the
products of matrices; torch has kernels for it (`torch.sparse.to_sparse_semi_structured`) for CUDA
only, in half precision or int8, for linear layers of certain sizes. On a CPU nothing gets faster:
here the lab shows the accuracy, and claims no speed.

The M neighbours lie along the input dimension, as the kernels want: the sums of products that make
one output are the ones with gaps.

Source: Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021.
"""

import torch
from torch import Tensor, nn

from labkit.checks import check_positive_int
from labkit.compression.prune.masks import Masks, prunable


def n_m_mask(weight: Tensor, n: int = 2, m: int = 4) -> Tensor:
    """Return a bool mask of the weight's shape with exactly n of each m inputs true.

    Args:
        weight: (outputs, inputs, …) of a linear or convolution layer; inputs divisible by m.
        n: how many stay, the largest ones; 1 to m.
        m: how many neighbours along the inputs make a block.

    Raises:
        ValueError: n or m out of range, or a weight that m does not divide or is not a number.
    """
    check_positive_int("n", n)
    check_positive_int("m", m)
    if n > m:
        raise ValueError(f"n must be at most m, got {n} of {m}")
    if weight.ndim < 2 or weight.shape[1] % m:
        raise ValueError(
            f"weight must be (outputs, inputs, …) with inputs divisible by {m}, "
            f"got {tuple(weight.shape)}"
        )
    if weight.isnan().any():
        raise ValueError("weight has entries that are not a number: nothing can be ranked")
    size = weight.detach().abs().movedim(1, -1)
    blocks = size.reshape(*size.shape[:-1], -1, m)
    order = blocks.argsort(dim=-1, descending=True, stable=True)
    mask = torch.zeros_like(blocks, dtype=torch.bool).scatter_(-1, order[..., :n], True)
    return mask.flatten(-2).movedim(-1, 1)


def n_m_masks(model: nn.Module, n: int = 2, m: int = 4) -> Masks:
    """Return name of weight -> mask, for `labkit.compression.prune.masks.apply_masks`.

    Layers whose inputs m does not divide (the first one of an image network, depthwise
    convolutions) get no mask and stay dense: no kernel would take them.

    Raises:
        ValueError: n or m out of range, or a model with no layer that m divides.
    """
    check_positive_int("m", m)
    fitting = {name: w for name, w in prunable(model).items() if w.shape[1] % m == 0}
    if not fitting:
        raise ValueError(f"model has no layer whose number of inputs is divisible by {m}")
    return {name: n_m_mask(weight, n, m) for name, weight in fitting.items()}
