"""The loop as everybody writes it by hand: what the others are measured against.

It reads the loss of each step, as everybody's loop does to print or plot it.
"""

from pathlib import Path

from torch import nn
from torch.nn import functional as F

from benchmarks.arms.work import Clocked, optimizer


def fit(model: nn.Module, data: Clocked, folder: Path) -> None:
    model.train()
    sgd = optimizer(model.parameters())
    losses = []
    for inputs, labels in data:
        sgd.zero_grad()
        loss = F.cross_entropy(model(inputs), labels)
        loss.backward()
        sgd.step()
        losses.append(loss.item())
