"""Notebook 03, mixed precision: what it measures, draws, says and checks."""
