"""Notebook 14, pruning: what it measures, draws, says and checks."""
