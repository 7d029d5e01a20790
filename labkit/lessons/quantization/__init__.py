"""Notebook 15, INT8 quantization: what it measures, draws, says and checks."""
