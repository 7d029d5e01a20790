"""Fewer bits for each number of a trained model: smaller, and faster where kernels exist."""

from labkit.compression.quantize.affine import (
    Grid,
    grid,
    grid_of,
    integer_linear,
    round_trip,
    to_floats,
    to_integers,
)
from labkit.compression.quantize.aware_training import aware, finish
from labkit.compression.quantize.dynamic_int8 import dynamic
from labkit.compression.quantize.file_size import file_bytes, header_bytes, predicted_bytes
from labkit.compression.quantize.files import load, save
from labkit.compression.quantize.int8_model import Int8Model
from labkit.compression.quantize.int8_roofline import Int8Limits, int8_limits
from labkit.compression.quantize.layer_noise import LayerError, layer_errors, leave_in_float
from labkit.compression.quantize.lowering import int8_kernels
from labkit.compression.quantize.ranges import RANGES, least_error, min_max, percentile
from labkit.compression.quantize.static_int8 import static
from labkit.compression.quantize.weight_only import weights

__all__ = [
    "RANGES",
    "Grid",
    "Int8Limits",
    "Int8Model",
    "LayerError",
    "aware",
    "dynamic",
    "file_bytes",
    "finish",
    "grid",
    "grid_of",
    "header_bytes",
    "int8_kernels",
    "int8_limits",
    "integer_linear",
    "layer_errors",
    "least_error",
    "leave_in_float",
    "load",
    "min_max",
    "percentile",
    "predicted_bytes",
    "round_trip",
    "save",
    "static",
    "to_floats",
    "to_integers",
    "weights",
]
