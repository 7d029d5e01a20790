"""What we train: small networks that learn something real in a minute on a laptop."""

from labkit.models.convnet import ConvNet, convnet
from labkit.models.mlp import mlp
from labkit.models.transformer import Transformer, next_token_loss, transformer

__all__ = ["ConvNet", "Transformer", "convnet", "mlp", "next_token_loss", "transformer"]
