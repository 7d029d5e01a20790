"""Count what a rank sends, and how long it stands idle for it.

Bytes follow from arithmetic, not from listening at the socket: a ring all-reduce over n ranks makes
each send 2 (n - 1) / n times the tensor. Waiting is what cannot be computed: the time in which this
rank has nothing to do but to wait for the network or for a slower rank. DistributedDataParallel
starts to send while backward still runs, so only what goes on after the last gradient counts.

    meter = NetworkMeter()
    ddp.register_comm_hook(meter, NetworkMeter.hook)
    …
    bytes_sent, waiting = meter.take()
    tell(step.index, step.loss, bytes_sent=bytes_sent, waiting=waiting)

On CUDA devices the host does not wait for the network, the device does: look at a profile instead.
"""

from time import perf_counter

import torch
import torch.distributed as dist
from torch import Tensor

from labkit.distributed.launcher.world import place
from labkit.plan.messages import ring_bytes


class NetworkMeter:
    """Averages gradients over all ranks, and keeps count.

    Args:
        travel_as: dtype in which `hook` sends gradients, such as `torch.bfloat16`; None leaves it.

    Raises:
        ValueError: `travel_as` holds no fractions.

    Attributes:
        bytes_sent: by this rank since the last `take`.
        waiting: seconds since then in which this rank only waited.
    """

    def __init__(self, travel_as: torch.dtype | None = None) -> None:
        if travel_as is not None and not travel_as.is_floating_point:
            raise ValueError(f"travel_as must be a floating-point dtype, got {travel_as}")
        self.travel_as = travel_as
        self.bytes_sent, self.waiting = 0, 0.0
        self._idle_since: float | None = None

    def take(self) -> tuple[int, float]:
        """Return (bytes sent, seconds waited) and start again from nothing."""
        taken = self.bytes_sent, self.waiting
        self.bytes_sent, self.waiting = 0, 0.0
        return taken

    def all_reduce(self, tensor: Tensor) -> None:
        """Sum `tensor` over all ranks, in place; this rank does nothing meanwhile."""
        self._count(tensor)
        start = perf_counter()
        dist.all_reduce(tensor)
        self.waiting += perf_counter() - start

    def hook(
        self,
        bucket: dist.GradBucket,  # type: ignore[name-defined]
    ) -> torch.futures.Future[Tensor]:
        """Average a bucket of gradients, while backward goes on: `register_comm_hook`'s hook."""
        buffer: Tensor = bucket.buffer()
        # The division comes first: a sum of 16-bit numbers would overflow sooner.
        travels = buffer.to(self.travel_as or buffer.dtype).div_(place()[1])
        self._count(travels)
        # After the last bucket backward has nothing left to compute: from here on the rank waits.
        self._idle_since = perf_counter() if bucket.is_last() else None
        work = dist.all_reduce(travels, async_op=True)
        assert work is not None
        # `then` runs in gloo's own thread when the sum has arrived; so it must not send anything.
        future: torch.futures.Future[Tensor] = work.get_future().then(
            lambda done: self._arrived(buffer, travels)
        )
        return future

    def _arrived(self, buffer: Tensor, travels: Tensor) -> Tensor:
        """Bring a mean home, and count the time since the last look, if the rank is idle."""
        if travels is not buffer:
            buffer.copy_(travels)
        if self._idle_since is not None:
            now = perf_counter()
            self.waiting += now - self._idle_since
            self._idle_since = now  # earlier buckets may still be on their way, and come after
        return buffer

    def _count(self, tensor: Tensor) -> None:
        parts = (tensor._indices(), tensor._values()) if tensor.is_sparse else (tensor,)
        size = sum(part.nbytes for part in parts)
        self.bytes_sent += round(ring_bytes(size, place()[1]))
