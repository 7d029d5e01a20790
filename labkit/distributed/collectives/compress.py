"""Fewer bytes for the same gradient: half the bits, or a matrix of low rank.

**16 bits.** Round each gradient to fp16 or bf16 before the all-reduce: half the bytes, a relative
error of at most 2**-11 or 2**-8 a number (fp16 also loses what is smaller than 2**-25). torch has
it ready, `ddp.register_comm_hook(None, fp16_compress_hook)`; `NetworkMeter(torch.float16)` does the
same and counts the bytes.

**PowerSGD.** The gradient of a layer is a matrix M of n x m numbers that is nearly of low rank. One
step of the power iteration finds P (n x r) and Q (m x r) with M ≈ P Qᵀ, and only those travel:
r (n + m) numbers instead of n m. As both steps are linear, the ranks' P and Q can be averaged. Q of
the last step is a good start for the next (*warm start*). What is left out now is added to the next
gradient (*error feedback*): nothing is lost, only late. Without that, SGD goes astray. Vectors
travel as they are. It pays when the network is slow: the products and the QR cost time, too.

torch's own `powerSGD_hook` hangs on gloo from two buckets on: its callbacks run in gloo's worker
threads, where they start further all-reduces and wait for them; different ranks then start them in
different orders, or no thread is left to do them. With NCCL it is fine: use it there. Here all is
done in DDP's own thread, in order, and nothing overlaps.

Source: Vogels, Karimireddy and Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for
Distributed Optimization", 2019.
"""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from labkit.checks import check_positive_int, check_whole
from labkit.distributed.collectives.coalesced import AllReduce, coalesced_mean

Means = Callable[[list[Tensor]], list[Tensor]]
"""Returns the means over all ranks of a list of tensors."""


def low_rank_means(
    matrices: Sequence[Tensor], starts: Sequence[Tensor], means: Means
) -> tuple[list[Tensor], list[Tensor]]:
    """Return P and Q for each matrix: P Qᵀ is nearly the mean over all ranks of their matrices.

    It is exact where the columns of `starts` reach all that the mean matrix does: at full rank.

    Args:
        matrices: this rank's, each (n, m).
        starts: for each matrix (m, r), the same on all ranks: the last Q, or random numbers.
        means: returns the means over all ranks of a list of tensors.

    Returns:
        For each matrix P (n, r), with orthonormal columns, and Q (m, r).
    """
    # Paper, algorithm 1. Mean of (M Q) = (mean of M) Q: so the ranks get P of the mean matrix.
    rough = means([m @ q for m, q in zip(matrices, starts, strict=True)])
    # All ranks start from the same bits, so all find the same basis and need not send it.
    ps = [torch.linalg.qr(p).Q for p in rough]
    return ps, means([m.T @ p for m, p in zip(matrices, ps, strict=True)])


def low_rank_numbers(shape: Sequence[int], rank: int) -> int:
    """Return how many numbers PowerSGD sends for a gradient of this shape.

    A tensor counts as the matrix of its first dimension and all others. Those that the two factors
    would not make smaller, as vectors, are sent whole.

    Raises:
        ValueError: `rank` is not a positive whole number, or a size is below 0.
    """
    check_positive_int("rank", rank)
    for size in shape:
        check_whole("shape", size, 0)
    numbers = torch.Size(shape).numel()
    if len(shape) < 2 or not numbers:  # a vector has no rank to lower
        return numbers
    return min(numbers, rank * (shape[0] + numbers // shape[0]))


class PowerSGD:
    """Averages gradients by way of matrices of low rank, and remembers what it left out.

    With DDP: `ddp.register_comm_hook(PowerSGD(2), PowerSGD.hook)`.

    Args:
        rank: of the matrices.
        error_feedback: add what was left out to the next gradient.
        all_reduce: sums over ranks in place; a `NetworkMeter`'s counts as well.

    Attributes:
        left_out: {parameter: what this rank still has to send}.

    Raises:
        ValueError: `rank` is not a positive whole number.
    """

    def __init__(
        self, rank: int = 2, *, error_feedback: bool = True, all_reduce: AllReduce = dist.all_reduce
    ) -> None:
        check_positive_int("rank", rank)
        self.rank, self.error_feedback, self.all_reduce = rank, error_feedback, all_reduce
        self.left_out: dict[Tensor, Tensor] = {}
        self._last_q: dict[Tensor, Tensor] = {}
        self._generator = torch.Generator().manual_seed(0)  # all ranks must draw the same

    def hook(self, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
        """Average the gradients of a bucket of DDP."""
        self.average(bucket.parameters(), bucket.gradients())
        buffer: Tensor = bucket.buffer()
        # The buffer holds the gradients themselves. A future that is done at once tells DDP that
        # there is nothing to wait for.
        devices: list[int | str | torch.device] = [buffer.device] if buffer.is_cuda else []
        future: torch.futures.Future[Tensor] = torch.futures.Future(devices=devices)
        future.set_result(buffer)
        return future

    @torch.no_grad()
    def average(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Replace gradients, in place, by (nearly) their mean over all ranks: three all-reduces.

        Args:
            parameters: whose gradients these are; all ranks have them in the same order.
            gradients: of the parameters' shapes.
        """
        large, small = [], []
        for weight, gradient in zip(parameters, gradients, strict=True):
            if low_rank_numbers(gradient.shape, self.rank) < gradient.numel():
                large.append((weight, gradient, self._to_send(weight, gradient)))
            else:
                small.append(gradient)
        matrices = [matrix for *_, matrix in large]
        starts = [self._start(weight, matrix) for weight, _, matrix in large]
        ps, qs = low_rank_means(matrices, starts, self._means)
        for (weight, gradient, matrix), p, q in zip(large, ps, qs, strict=True):
            sent = p @ q.T
            self._last_q[weight] = q  # the next start: gradients change little from step to step
            if self.error_feedback:  # first, because the matrix may be a view of the gradient
                self.left_out[weight] = matrix - sent
            gradient.copy_(sent.view(gradient.shape))
        self._means(small)

    def _to_send(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        """Return the gradient, and what was left out before, as a float32 (or 64) matrix."""
        matrix = gradient.reshape(len(gradient), -1)
        if matrix.dtype != torch.float64:  # errors of 16 bits would pile up in what is left out
            matrix = matrix.float()
        return matrix + self.left_out[parameter] if parameter in self.left_out else matrix

    def _start(self, parameter: Tensor, matrix: Tensor) -> Tensor:
        if parameter not in self._last_q:
            shape = (matrix.shape[1], self.rank)
            self._last_q[parameter] = torch.randn(shape, generator=self._generator).to(matrix)
        return self._last_q[parameter]

    def _means(self, tensors: list[Tensor]) -> list[Tensor]:
        """Return the very tensors given, which have become their means over the ranks."""
        coalesced_mean(tensors, all_reduce=self.all_reduce)
        return tensors
