"""What we train on, and how it reaches the model."""

from labkit.data.batches import Batches, EpochBatches
from labkit.data.fashion import fashion
from labkit.data.images import ImageData
from labkit.data.text import TextBatches, TextData, speeches

__all__ = ["Batches", "EpochBatches", "ImageData", "TextBatches", "TextData", "fashion", "speeches"]
