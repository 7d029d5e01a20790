"""accelerate, the leanest way: model and optimizer are prepared, the data is left alone.

Its loop is the user's own, so it reads the loss as the bare loop does.
"""

from pathlib import Path

from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F

from benchmarks.arms.work import Clocked, optimizer


def fit(model: nn.Module, data: Clocked, folder: Path) -> None:
    accelerator = Accelerator(cpu=True)
    prepared, sgd = accelerator.prepare(model, optimizer(model.parameters()))
    loop(accelerator, prepared, sgd, data)


def loop(accelerator, model, sgd, batches) -> None:
    model.train()
    losses = []
    for inputs, labels in batches:
        sgd.zero_grad()
        loss = F.cross_entropy(model(inputs), labels)
        accelerator.backward(loss)
        sgd.step()
        losses.append(loss.item())
