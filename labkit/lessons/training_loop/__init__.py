"""Notebook 01, the training loop: what it measures, draws, says and checks."""
