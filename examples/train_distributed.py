"""Data parallel training that survives the death of a worker, on one machine or many.

    python examples/train_distributed.py
    torchrun --local-addr 127.0.0.1 --nproc-per-node 2 --max-restarts 3 \\
        examples/train_distributed.py

and on each of two machines, whose address and interface you put in place of these:

    GLOO_SOCKET_IFNAME=eth0 torchrun --nnodes 2 --nproc-per-node 1 --max-restarts 3 \\
        --rdzv-backend c10d --rdzv-endpoint 10.0.0.1:29400 examples/train_distributed.py

A notebook starts the same function with `labkit.distributed.launch(fit, nprocs=2, …)`.

A rank that dies takes the others with it, since they would wait for it for ever. So torchrun starts
all of them again, and they go on from the last checkpoint. For that to be the same training, the
images of a step must depend on the number of the step alone, not on who is still alive.

The checkpoint must lie on a disk that all machines share. torchrun itself listens on all interfaces
of the first machine, and whoever reaches that port can disturb the training: use a trusted network.
Without --local-addr it hangs on a machine whose host name leads nowhere.
"""

import argparse
import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from labkit import checkpoint, cosine, data, models, seed_everything, threads, train
from labkit.data.batches import Batches
from labkit.distributed import init, tell
from labkit.distributed.parallel.data import data_parallel, shard

CHECKPOINT = Path(__file__).parent.parent / "results" / "train_distributed.checkpoint"


def fit(steps: int = 200, images: int = 10_000, every: int = 20, path: Path = CHECKPOINT) -> float:
    """Train the conv net with all ranks, from the checkpoint if there is one.

    Args:
        steps: of the whole training.
        images: how many to train on.
        every: steps from one checkpoint to the next.
        path: of the checkpoint.

    Returns:
        The final loss on 500 test images, on each rank. How often the training was broken off and
        resumed makes no difference to it, not in the last bit. The number of ranks does: each
        normalises its own images.
    """
    # More threads would add up in another order. That changes the last bits.
    with init() as world, threads(1):
        print(f"rank {world.rank} of {world.size} is process {os.getpid()}\n", end="", flush=True)
        seed_everything(0)
        clothes = data.fashion(train=images, test=500)
        model = data_parallel(models.convnet().to(world.device))
        mine = shard(clothes.batches(128, device=world.device), world.rank, world.size)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        training = train(model, mine, optimizer, schedule=cosine(warmup=0.1), steps=steps)
        if path.exists():
            checkpoint.load(path, training)
            if world.rank == 0:
                print(f"resumed after {training.index} of {steps} steps: {path}", flush=True)
        for step in training:
            if training.index % every == 0 or training.index == steps:
                if world.rank == 0:
                    checkpoint.save(path, training)
                tell(step.index, step.loss, steps=steps)
        # Running statistics of batch norm differ between ranks: those of rank 0 count.
        loss = torch.zeros(1, dtype=torch.float64, device=world.device)
        if world.rank == 0:
            loss += test_loss(model.module, clothes.test_batches(device=world.device))
        dist.broadcast(loss, src=0)
        if world.rank == 0:
            print(f"final loss {loss.item()!r}", flush=True)
        return loss.item()


@torch.no_grad()
def test_loss(model: nn.Module, batches: Batches) -> float:
    """Return the mean loss of the model over all images."""
    model.eval()
    losses = [F.cross_entropy(model(x), y, reduction="sum").item() for x, y in batches]
    return sum(losses) / len(batches.images)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="data parallel training, with checkpoints")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--every", type=int, default=20, help="steps between checkpoints")
    parser.add_argument("--path", type=Path, default=CHECKPOINT, help="of the checkpoint")
    fit(**vars(parser.parse_args()))
