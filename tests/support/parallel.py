"""What tests of one model on many ranks share: models, gradients, a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from labkit import train
from labkit.distributed.parallel.data import joined_mean
from labkit.training import classify


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """The same model each time."""
    torch.manual_seed(0)
    return make()


def resnet18() -> nn.Module:
    """torchvision's, in evaluation: statistics of a part of the batch are another story."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model: nn.Module = resnet18(num_classes=10).eval()
    return model


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    """Gradients by name, whether DDP wraps the model or not."""
    return {name.removeprefix("module."): p.grad for name, p in model.named_parameters()}


def one_step(model: nn.Module, batches: Iterable[Any]) -> float:
    """The last loss of steps that change no weight, as one of the ranks."""
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    steps = train(model, batches, still, task=joined_mean(classify()))
    return [step.loss for step in steps][-1]


def content(model, optimizer):
    """All that a checkpoint must bring back, whole and on this rank."""
    whole = {name: full(value) for name, value in model.state_dict().items()}
    state = optimizer.state_dict()["state"]
    for number, entries in state.items():
        whole |= {f"{number}.{name}": full(value) for name, value in entries.items()}
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    return whole, groups


def full(tensor):
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone()


def check_equal(found, expected):
    (tensors, groups), (there, there_groups) = found, expected
    assert tensors.keys() == there.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, there[name]), name
        assert tensor.dtype == there[name].dtype
    assert groups == there_groups
