"""Lightning in barebones mode: "all features that may impact raw speed are disabled".

Its manual keeps that mode for measuring the overhead, so this is the least that it can cost.
"""

from pathlib import Path

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.arms.work import Batch, Clocked, optimizer


class Module(lightning.LightningModule):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: Batch) -> Tensor:
        inputs, labels = batch
        return F.cross_entropy(self.model(inputs), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optimizer(self.model.parameters())


def fit(model: nn.Module, data: Clocked, folder: Path) -> None:
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        barebones=True,
        default_root_dir=folder,
    )
    trainer.fit(Module(model), data)
