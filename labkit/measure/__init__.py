"""Measure: time, memory, FLOPs, the machine's ceiling, and what a comparison may claim."""

from labkit.measure.ceiling import Ceiling, ceiling
from labkit.measure.flops import flops, step_flops
from labkit.measure.memory import peak_memory, saved_bytes
from labkit.measure.roofline import Standing, predict_seconds, standing
from labkit.measure.statistics import Estimate, median_interval, paired_ratio
from labkit.measure.timing import Timing, interleave, latencies, order_of_round
from labkit.measure.traffic import traffic

__all__ = [
    "Ceiling",
    "Estimate",
    "Standing",
    "Timing",
    "ceiling",
    "flops",
    "interleave",
    "latencies",
    "median_interval",
    "order_of_round",
    "paired_ratio",
    "peak_memory",
    "predict_seconds",
    "saved_bytes",
    "standing",
    "step_flops",
    "traffic",
]
