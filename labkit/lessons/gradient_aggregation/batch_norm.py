"""What the ranks of notebook 12 do in its second part: plain against synchronized batch norm.

Plain batch norm has two faults where ranks see different data: it trains on statistics of one
rank's batches, and it remembers, for evaluation, statistics of one rank's images. The second has a
cure that costs one message after the training: the mean of the running statistics. So there are
three arms, and one can see which fault costs how much.
"""

from collections.abc import Iterator
from itertools import product

import torch
from torch import nn

from labkit.compare import STEP_TIME, Samples
from labkit.data import Batches
from labkit.data.images import ImageData
from labkit.distributed import Ranks, init, tell
from labkit.distributed.collectives.coalesced import coalesced_mean
from labkit.distributed.collectives.network_meter import NetworkMeter
from labkit.distributed.parallel.batch_norm import synchronize_batch_norm
from labkit.distributed.parallel.data import data_parallel
from labkit.distributed.parallel.local_sgd import average_parameters
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
from labkit.measure.timing import order_of_round
from labkit.training import Step

NORMS = ("plain", "synchronized")
AVERAGED = "plain, averaged after"
Raced = tuple[Samples, Samples]
"""Loss at the end and scores of each "deal: norm"; times of a step of each norm."""


def nothing_raced() -> Raced:
    """Return the samples of a race in which nothing was measured yet."""
    arms = [f"{deal}: {norm}" for deal in DEALS for norm in (NORMS[0], AVERAGED, NORMS[1])]
    return Samples(arms, (END_LOSS, CORRECT)), Samples(NORMS, (STEP_TIME,))


def norms(images: ImageData, batch: int, steps: int, seeds: int) -> Raced:
    """Race plain against synchronized batch norm, steps in turns, on both deals of the images.

    What is told of each step: the loss is the synchronized network's; bytes and times are of both.

    Args:
        images: to be dealt to the ranks.
        batch: images a rank and step.
        steps: of each training.
        seeds: trainings of each norm on each deal.

    Returns:
        See `Raced`; losses and scores are means over the ranks.
    """
    results, times = nothing_raced()
    trained, total = {}, len(DEALS) * seeds * steps
    with init() as world:
        for number, (deal, seed) in enumerate(product(DEALS, range(seeds))):
            meter, plain = NetworkMeter(), network(world, seed)
            pair = (plain, synchronize_batch_norm(plain, meter.all_reduce))
            trained[deal, seed] = dict(zip(NORMS, pair, strict=True))
            runs = {
                norm: _steps(model, rank_batches(images, world, deal, batch, seed), steps, meter)
                for norm, model in trained[deal, seed].items()
            }
            losses: dict[str, list[float]] = {norm: [] for norm in NORMS}
            for turn in range(number * steps, (number + 1) * steps):
                for norm in order_of_round(NORMS, turn):
                    step = next(runs[norm])
                    losses[norm].append(step.loss)
                    times.add(norm, STEP_TIME, step.seconds, round=turn)
                sent, waiting = meter.take()
                loss = losses[NORMS[1]][-1]
                tell(turn, loss, steps=total, bytes_sent=sent, waiting=waiting)
            ends = torch.tensor([end_of(losses[norm]) for norm in NORMS], device=world.device)
            coalesced_mean([ends])
            for norm, end in zip(NORMS, ends.tolist(), strict=True):
                results.add(f"{deal}: {norm}", END_LOSS, end, seed=seed)
        for (deal, seed), networks in trained.items():  # now that nobody watches the time of steps
            for norm, model in networks.items():
                found = mean_scores(model, images, world)
                results.add_scores(f"{deal}: {norm}", CORRECT, found, seed=seed)
            average_parameters(networks[NORMS[0]])  # the weights are the same on all ranks anyway
            found = mean_scores(networks[NORMS[0]], images, world)
            results.add_scores(f"{deal}: {AVERAGED}", CORRECT, found, seed=seed)
    return results, times


def _steps(model: nn.Module, batches: Batches, steps: int, meter: NetworkMeter) -> Iterator[Step]:
    return iter(training(data_parallel(model, meter=meter), batches, steps))


def raced(ranks: Ranks) -> Raced:
    """Return what `norms` found on the ranks, or nothing if they were stopped before the end."""
    found: Raced | None = ranks.results[0]
    return nothing_raced() if found is None else found
