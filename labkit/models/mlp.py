"""The smallest network that still has every part of a training step.

Its step takes under a millisecond, so whatever a training loop adds shows at once.
"""

from torch import nn

from labkit.checks import check_positive_int


def mlp(inputs: int = 64, hidden: int = 64, classes: int = 10) -> nn.Sequential:
    """Return Linear -> ReLU -> Linear for inputs of shape (batch, inputs); logits (batch, classes).

    Raises:
        ValueError: a size is not a positive whole number.
    """
    for name, value in (("inputs", inputs), ("hidden", hidden), ("classes", classes)):
        check_positive_int(name, value)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))
