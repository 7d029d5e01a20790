"""Notebook 13, model parallel: what it measures, draws, says and checks."""
