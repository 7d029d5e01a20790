"""fastai with two of its default callbacks: those that make it train. Recorder is a log.

torch's own optimizer goes through the wrapper that fastai has for it, so that the arithmetic is
the same in all arms.
"""

from functools import partial
from pathlib import Path

import torch
from fastai.data.core import DataLoaders
from fastai.learner import CastToTensor, Learner, TrainEvalCallback
from fastai.optimizer import OptimWrapper
from torch import nn
from torch.nn import functional as F

from benchmarks.arms.work import LR, MOMENTUM, Clocked


def fit(model: nn.Module, data: Clocked, folder: Path) -> None:
    learner = Learner(
        DataLoaders(data, [], path=folder),  # no batches to validate on
        model,
        loss_func=F.cross_entropy,
        opt_func=partial(OptimWrapper, opt=torch.optim.SGD, momentum=MOMENTUM),
        lr=LR,
        default_cbs=False,
        cbs=[TrainEvalCallback, CastToTensor],
    )
    learner.fit(1)
