"""Notebook 12, gradient aggregation: what it measures, draws, says and checks."""
