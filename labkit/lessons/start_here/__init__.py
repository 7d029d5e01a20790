"""Notebook 00, start here: what it measures, draws, says and checks."""
