"""What we train: small networks that learn something real in a minute on a laptop."""

from labkit.models.convnet import ConvNet, convnet
from labkit.models.mlp import mlp

__all__ = ["ConvNet", "convnet", "mlp"]
