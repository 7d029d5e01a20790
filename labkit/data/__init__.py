"""What we train on, and how it reaches the model."""

from labkit.data.batches import Batches, EpochBatches
from labkit.data.fashion import fashion
from labkit.data.images import ImageData
from labkit.data.masked import MaskedBatches, MaskedText, mask_tokens
from labkit.data.text import TextBatches, TextData, speeches

__all__ = [
    "Batches",
    "EpochBatches",
    "ImageData",
    "MaskedBatches",
    "MaskedText",
    "TextBatches",
    "TextData",
    "fashion",
    "mask_tokens",
    "speeches",
]
