"""What the ranks of notebook 12 do: messages, compressed gradients, means now and then.

Each function joins the other ranks and returns plain numbers or `Samples`. The images come from the
notebook, which has loaded them anyway: reading the whole set in each rank would take a second and a
hundred megabytes there.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import product

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from labkit.compare import STEP_TIME, Quantity, Samples, Verdict
from labkit.data.images import ImageData
from labkit.distributed import World, init
from labkit.distributed.collectives.compress import PowerSGD
from labkit.distributed.collectives.network_meter import NetworkMeter
from labkit.distributed.collectives.rank_timing import interleave_ranks
from labkit.distributed.parallel.data import data_parallel
from labkit.distributed.parallel.local_sgd import average_ranks
from labkit.lessons.gradient_aggregation.small_training import (
    CORRECT,
    DEALS,
    END_LOSS,
    end_of,
    mean_scores,
    network,
    rank_batches,
    training,
)
from labkit.training import Batch

SENT = Quantity("bytes sent", "kB", exact=True, scale=1e-3, header="kB a rank")

# -- messages --------------------------------------------------------------------------------

GRADIENT = 2 * 2**20  # bytes that are sent in buckets
KIB = 1024
MESSAGE_TIME = Quantity.time("time of as many bytes")


def messages(sizes: Sequence[int], rounds: int) -> dict[str, dict[int, list[float]]]:
    """Time all-reduces of one message, and of GRADIENT bytes in buckets, of sizes that divide it.

    The tensors are there already: nothing is computed meanwhile, and no bucket waits to be full.

    Returns:
        {"one message": {its bytes: seconds}, "buckets": {bytes of a bucket: seconds}}.
    """
    kinds = ("one message", "buckets")
    with init() as world:
        whole = torch.zeros(GRADIENT // 4, device=world.device)
        arms: dict[str, Callable[[], object]] = {}
        for size in sizes:
            pieces = torch.split(whole, size // 4)
            for kind, sent in zip(kinds, (pieces[:1], pieces), strict=True):
                arms[f"{kind} {size}"] = partial(_all_reduce, sent)
        times = interleave_ranks(arms, rounds)
    return {kind: {size: times[f"{kind} {size}"] for size in sizes} for kind in kinds}


def _all_reduce(tensors: Iterable[Tensor]) -> None:
    for tensor in tensors:
        dist.all_reduce(tensor)


def gathered(sent: Mapping[str, Mapping[int, Sequence[float]]]) -> Verdict:
    """Return what one message of GRADIENT bytes gains over the smallest buckets.

    Args:
        sent: see `messages`; GRADIENT is one of its sizes.
    """
    sizes = list(sent["buckets"])
    # All arms, in the order in which they took turns: `Samples` balances who came first by it.
    times = {f"{kind} of {size // KIB} KiB": sent[kind][size] for size in sizes for kind in sent}
    samples = Samples.of_timings(times, MESSAGE_TIME)
    large, small = GRADIENT // KIB, min(sizes) // KIB
    return samples.verdict(f"one message of {large} KiB", f"buckets of {small} KiB")


# -- compression -----------------------------------------------------------------------------

AT_A_GIGABIT = Quantity("sending at 1 Gbit/s", "ms", exact=True, scale=8e-6)
ERROR = Quantity("relative error", "%", "difference", margin=0.1, exact=True, scale=100)


def compression(images: ImageData, rounds: int) -> Samples:
    """Compare ways to average the gradients of a step of the conv net, batch 32 a rank.

    Returns:
        For each way the times, the bytes that a rank sends, and how far the gradient is from the
        exact mean, as a share of its length. The baseline sends fp32.
    """
    with init() as world:
        batch = next(iter(rank_batches(images, world, "shuffled", 32, seed=0)))
        dtypes = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
        steps = {name: _Averaged(batch, world, NetworkMeter(t)) for name, t in dtypes.items()}
        for rank in (1, 4):  # without feedback: it is asked to send the same gradient each time
            meter = NetworkMeter()
            power = PowerSGD(rank, error_feedback=False, all_reduce=meter.all_reduce)
            steps[f"PowerSGD {rank}"] = _Averaged(batch, world, meter, power)
        samples = Samples.of_timings(interleave_ranks(steps, rounds), STEP_TIME)
        exact = steps["fp32"].gradient()
        for name, step in steps.items():
            step.meter.take()
            off = step.gradient() - exact
            sent, _ = step.meter.take()
            samples.add(name, SENT, sent)
            samples.add(name, AT_A_GIGABIT, sent)
            samples.add(name, ERROR, float(off.norm() / exact.norm()))
        return samples


class _Averaged:
    """The gradient of one batch, computed again and again and averaged in one way.

    Args:
        batch: of this rank.
        world: of all ranks.
        meter: averages the gradients, or counts for `power`.
        power: averages them instead, if there is one.
    """

    def __init__(
        self, batch: Batch, world: World, meter: NetworkMeter, power: PowerSGD | None = None
    ) -> None:
        self.meter, self._batch = meter, batch
        self._model = network(world, seed=0, width=16)
        self._wrapped = data_parallel(self._model)
        way = meter if power is None else power
        self._wrapped.register_comm_hook(way, type(way).hook)

    def __call__(self) -> None:
        self._wrapped.zero_grad()
        images, labels = self._batch
        torch.autograd.backward(F.cross_entropy(self._wrapped(images), labels))

    def gradient(self) -> Tensor:
        """Return the mean gradient of all ranks, (numbers,)."""
        self()
        return torch.cat([p.grad.flatten() for p in self._model.parameters() if p.grad is not None])


# -- error feedback --------------------------------------------------------------------------


def low_rank_training(images: ImageData, steps: int, seeds: int) -> dict[str, list[list[float]]]:
    """Train with the whole gradient, and with rank 2 with and without error feedback.

    Returns:
        {way: for each seed this rank's loss of each step}.
    """
    ways = {"whole": None, "rank 2, feedback": True, "rank 2, no feedback": False}
    losses: dict[str, list[list[float]]] = {name: [] for name in ways}
    with init() as world:
        for name, seed in product(ways, range(seeds)):
            wrapped = data_parallel(network(world, seed))
            if (feedback := ways[name]) is not None:
                power = PowerSGD(2, error_feedback=feedback)
                wrapped.register_comm_hook(power, PowerSGD.hook)
            batches = rank_batches(images, world, "shuffled", 32, seed)
            losses[name].append([step.loss for step in training(wrapped, batches, steps)])
    return losses


def ends(losses: Mapping[str, Sequence[Sequence[float]]]) -> Samples:
    """Return the mean loss over the last tenth of the steps, seed by seed.

    Args:
        losses: see `low_rank_training`; the first way is the baseline.
    """
    samples = Samples(losses, (END_LOSS,))
    for name, seeds in losses.items():
        for seed, of_steps in enumerate(seeds):
            samples.add(name, END_LOSS, end_of(of_steps), seed=seed)
    return samples


# -- local SGD -------------------------------------------------------------------------------


def periods(images: ImageData, every: Sequence[int], steps: int, seeds: int) -> Samples:
    """Train apart, with the mean of the weights every so many steps, on both deals of the images.

    Returns:
        For each "deal, period" the bytes that a rank sends in a training, and the scores on the
        test images of each seed. The baseline is the first period on the shuffled deal.
    """
    samples = Samples((rhythm(*arm) for arm in product(DEALS, every)), (SENT, CORRECT))
    with init() as world:
        for deal, period, seed in product(DEALS, every, range(seeds)):
            arm, model, meter = rhythm(deal, period), network(world, seed), NetworkMeter()
            batches = rank_batches(images, world, deal, 32, seed)
            for _ in training(model, batches, steps, average_ranks(period, meter.all_reduce)):
                pass
            samples.add(arm, SENT, meter.take()[0])
            samples.add_scores(arm, CORRECT, mean_scores(model, images, world), seed=seed)
    return samples


def rhythm(deal: str, period: int) -> str:
    """Return the name of an arm of `periods`."""
    return f"{deal}, every {'step' if period == 1 else f'{period} steps'}"


def rarer(samples: Samples, every: Sequence[int]) -> dict[str, Verdict]:
    """Return the verdict of each rarer period over the first one of the same deal.

    Args:
        samples: see `periods`.
        every: the periods.
    """
    first, *others = every
    return {
        rhythm(deal, period): samples.verdict(rhythm(deal, period), rhythm(deal, first), CORRECT)
        for deal, period in product(DEALS, others)
    }
