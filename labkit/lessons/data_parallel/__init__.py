"""Notebook 11, data parallel: what it measures, draws, says and checks."""
