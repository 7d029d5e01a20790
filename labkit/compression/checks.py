"""Errors of arguments that many ways of compression take."""

from torch import nn


def check_model(model: object) -> None:
    """Raise a TypeError unless the model is a module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
