"""Arithmetic of a training on many devices: memory, traffic, schedules, efficiency; no process."""
